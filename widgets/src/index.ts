// The bundle. The Runtime widget carries it once; each view's stub asks it to render its kind.
import { mountComposition } from "./core/compose";
import style from "./core/style.css";
import type { Mount } from "./core/types";
import { type Kind, mountView } from "./core/view";
import { attentionPattern } from "./views/attention";
import { headGrid } from "./views/headgrid";
import { timeline } from "./views/timeline";

const KINDS: Record<string, Kind> = { HeadGrid: headGrid, AttentionPattern: attentionPattern, Timeline: timeline };

function wearStyle(): void {
  if (document.getElementById("tensorscope-style")) return;
  const element = document.createElement("style");
  element.id = "tensorscope-style";
  element.textContent = style;
  document.head.append(element);
}

const basisOf = (kind: string): number => KINDS[kind]?.basis ?? 320;

async function render(mount: Mount): Promise<void> {
  wearStyle();
  const kind = mount.model.get("kind") as string;
  if (kind === "Composition") return mountComposition(mount, render, basisOf);
  const view = KINDS[kind];
  if (!view) throw new Error(`This front end has no view called ${kind}; it has ${Object.keys(KINDS).join(", ")}.`);
  return mountView(kind, view, mount);
}

export default {
  initialize: () => ({ render }),
};
