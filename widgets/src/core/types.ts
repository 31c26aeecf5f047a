// What anywidget (or the host of an exported file) hands to a view.
export interface Model {
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(name: string, callback: () => void): void;
  /** A message to the kernel; a file without one has no such thing. */
  send?(content: unknown): void;
  widget_manager?: { get_model(id: string): Promise<{ comm_live?: boolean }> };
}

export interface Host {
  getModel(ref: string): Promise<Model>;
}

export interface Mount {
  model: Model;
  el: HTMLElement;
  host: Host;
  signal: AbortSignal;
  /** Stands within a composition, which has the Focus bar. */
  nested?: boolean;
}

export type Value = string | number | boolean;
export type Selection = Value | Value[];
/** The Focus as it travels: dimension name to coordinate value(s). */
export type Cursor = Record<string, Selection>;
/** One place by dimension name. */
export type Place = Record<string, Value>;
/** A change to the Focus: null clears a dimension. */
export type Patch = Record<string, Selection | null>;
