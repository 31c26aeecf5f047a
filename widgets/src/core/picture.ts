// A view as a PNG, made in the page: its elements and style as an image, its canvases as they are.
const SCALE = 2;

export async function savePicture(root: HTMLElement, name: string): Promise<void> {
  const { width, height } = root.getBoundingClientRect();
  const svg = pictureOf(root, Math.ceil(width), Math.ceil(height));
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil(width) * SCALE;
  canvas.height = Math.ceil(height) * SCALE;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser has no canvas to draw the picture on");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new Error("this browser did not write the picture");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").toLowerCase() || "view"}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The view as an SVG that holds its elements: what is out of sight, floats or is only there to be clicked stays behind. */
function pictureOf(root: HTMLElement, width: number, height: number): string {
  const copy = root.cloneNode(true) as HTMLElement;
  const originals = root.querySelectorAll("canvas");
  copy.querySelectorAll("canvas").forEach((blank, i) => {
    const image = document.createElement("img");
    image.src = originals[i].toDataURL("image/png");
    image.setAttribute("style", `${blank.getAttribute("style") ?? ""};display:block`);
    blank.replaceWith(image);
  });
  copy.querySelectorAll(".ts-tools, .ts-tip, .ts-live, .ts-space-row").forEach((e) => e.remove());
  copy.querySelectorAll<HTMLElement>(".ts-scroll, .ts-strip").forEach((e) => (e.style.overflow = "hidden"));
  const style = getComputedStyle(root);
  for (const name of ["ink", "quiet", "paper", "raised", "rule", "accent", "font", "mono"]) {
    copy.style.setProperty(`--ts-${name}`, style.getPropertyValue(`--ts-${name}`));
  }
  copy.style.background = style.getPropertyValue("--ts-paper");
  copy.style.width = `${width}px`;
  copy.style.height = `${height}px`;
  const sheet = document.createElement("style");
  sheet.textContent = document.getElementById("tensorscope-style")?.textContent ?? "";
  copy.prepend(sheet);
  // control characters end an XML document, wherever they are
  const content = new XMLSerializer().serializeToString(copy).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${content}</foreignObject></svg>`;
}
