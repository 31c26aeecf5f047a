// The bundle. The Runtime widget carries it once; each view's stub asks it to render its kind.
import { mountComposition } from "./core/compose";
import { mountFocusBar } from "./core/focusbar";
import { mountLive } from "./core/live";
import type { Kind } from "./core/stage";
import style from "./core/style.css";
import type { Mount } from "./core/types";
import { mountView } from "./core/view";
import { attentionPattern } from "./views/attention";
import { headGrid, matrix } from "./views/cellgrid";
import { landscape } from "./views/landscape";
import { layerBars } from "./views/layerbars";
import { ranking } from "./views/ranking";
import { sampleTable } from "./views/sampletable";
import { scatter } from "./views/scatter";
import { spectrum } from "./views/spectrum";
import { timeline } from "./views/timeline";
import { tokenStrip } from "./views/tokenstrip";

const KINDS: Record<string, Kind> = {
  HeadGrid: headGrid, Matrix: matrix, Landscape: landscape, LayerBars: layerBars, Ranking: ranking, Spectrum: spectrum, Scatter: scatter,
  Timeline: timeline, AttentionPattern: attentionPattern, TokenStrip: tokenStrip, SampleTable: sampleTable,
};

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
  if (kind === "Live") return mountLive(mount, render);
  if (kind === "FocusBar") return mountFocusBar(mount);
  const view = KINDS[kind];
  if (!view) throw new Error(`This front end has no view called ${kind}; it has ${Object.keys(KINDS).join(", ")}.`);
  return mountView(kind, view, mount);
}

export default {
  initialize: () => ({ render }),
};
