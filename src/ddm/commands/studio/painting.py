"""The two parts of the Denoise tab that are the browser's own: choosing a picture, and painting a mask on it.

Both hand over text as the value of their component. Neither uses gradio's uploads: the page has no such endpoint.
"""

LONGEST = 512
"""Pixels of a side above which the browser reduces a picture before it sends it: the server reduces it further."""

UPLOADER = """
<div class="uploader">
  <label class="drop"><span class="what">Choose a picture, or drop one here</span>
    <span class="help">PNG, JPEG or WebP. It is cropped to the centre square and resized for the model.</span>
    <input type="file" accept="image/png,image/jpeg,image/webp" aria-label="Picture file"></label>
  <p class="said" role="status"></p>
</div>
"""

UPLOADER_JS = """
const input = element.querySelector("input"), drop = element.querySelector(".drop");
const said = element.querySelector(".said"), types = ["image/png", "image/jpeg", "image/webp"];
const say = (words) => { said.textContent = words; };
const smaller = async (picture) => {
  const scale = Math.min(1, props.longest / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
};
const prepared = async (file) => {
  if (!types.includes(file.type)) return file;
  try {
    const picture = await createImageBitmap(file);
    const large = Math.max(picture.width, picture.height) > props.longest || file.size > props.most_bytes;
    return large ? await smaller(picture) : file;
  } catch { return file; }
};
const read = async (file) => {
  if (!file) return;
  say("Reading " + file.name);
  const data = await prepared(file);
  if (data.size > props.most_bytes) {
    const size = (bytes) => (bytes / 1e6).toFixed(1) + " MB";
    return say(`${file.name} has ${size(data.size)}; up to ${size(props.most_bytes)} are allowed.`);
  }
  const reader = new FileReader();
  reader.onload = () => { say(file.name); props.value = reader.result; trigger("upload"); };
  reader.onerror = () => say(file.name + " cannot be read.");
  reader.readAsDataURL(data);
};
input.addEventListener("change", () => { read(input.files[0]); input.value = ""; });
for (const name of ["dragenter", "dragover"])
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); read(event.dataTransfer.files[0]); });
"""

PAINTER = """
<div class="painter">
  <div class="easel"><canvas width="32" height="32" tabindex="0" role="img"
    aria-label="Mask: the painted part is made anew. Arrow keys move the brush, the space bar paints."></canvas>
    <div class="brush" aria-hidden="true"></div></div>
  <div class="tools">
    <div class="row" role="group" aria-label="Brush">
      <label>Brush <input type="range" class="size" min="1" max="12" value="4" aria-label="Size of the brush"></label>
      <label><input type="checkbox" class="erase"> Erase</label>
    </div>
    <div class="row" role="group" aria-label="Paint at once">
      <button type="button" data-part="left">Left half</button>
      <button type="button" data-part="right">Right half</button>
      <button type="button" data-part="top">Top half</button>
      <button type="button" data-part="bottom">Bottom half</button>
      <button type="button" data-part="middle">Middle</button>
    </div>
    <div class="row" role="group" aria-label="Change the mask">
      <button type="button" data-do="invert">Invert</button><button type="button" data-do="clear">Clear</button>
      <button type="button" data-do="undo">Undo</button>
    </div>
    <p class="said" role="status">Nothing is painted yet.</p>
  </div>
</div>
"""

PAINTER_JS = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d"), brush = element.querySelector(".brush");
const size = element.querySelector(".size"), erase = element.querySelector(".erase");
const said = element.querySelector(".said");
let width = 32, height = 32, mask = new Uint8Array(width * height), picture = null;
let at = [16, 16], last = null, steps = [];
const draw = () => {
  pen.globalAlpha = 1;
  pen.clearRect(0, 0, width, height);
  if (picture) pen.drawImage(picture, 0, 0, width, height);
  pen.globalAlpha = 0.72;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (mask[y * width + x]) {
    pen.fillStyle = (x + y) % 2 ? "#d6246e" : "#f0559a";
    pen.fillRect(x, y, 1, 1);
  }
  const side = Number(size.value), part = (place, whole) => (100 * place) / whole + "%";
  brush.style.left = part(at[0] - Math.floor(side / 2), width);
  brush.style.top = part(at[1] - Math.floor(side / 2), height);
  brush.style.width = part(side, width);
  brush.style.height = part(side, height);
};
const publish = () => {
  const rows = [];
  for (let y = 0; y < height; y++) rows.push(mask.subarray(y * width, (y + 1) * width).join(""));
  const count = mask.reduce((sum, each) => sum + each, 0);
  const words = (number) => number.toLocaleString("en");
  said.textContent = count ? `${words(count)} of ${words(mask.length)} pixels are made anew.`
    : "Nothing is painted yet.";
  props.value = count ? rows.join("\\n") : "";
};
const remember = () => { steps.push(mask.slice()); if (steps.length > 50) steps.shift(); };
const dab = (x, y) => {
  const side = Number(size.value), left = x - Math.floor(side / 2), top = y - Math.floor(side / 2);
  for (let j = Math.max(0, top); j < Math.min(height, top + side); j++)
    for (let i = Math.max(0, left); i < Math.min(width, left + side); i++) mask[j * width + i] = erase.checked ? 0 : 1;
};
const stroke = (from, to) => {
  const count = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
  for (let k = 0; k <= count; k++)
    dab(Math.round(from[0] + ((to[0] - from[0]) * k) / count), Math.round(from[1] + ((to[1] - from[1]) * k) / count));
};
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  const inside = (value, whole) => Math.max(0, Math.min(whole - 1, Math.floor(value * whole)));
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  return [inside(x, width), inside(y, height)];
};
canvas.addEventListener("pointerdown", (event) => {
  event.preventDefault(); canvas.focus({preventScroll: true}); canvas.setPointerCapture(event.pointerId);
  remember(); at = last = place(event); stroke(last, last); draw();
});
canvas.addEventListener("pointermove", (event) => {
  at = place(event);
  if (last) { stroke(last, at); last = at; }
  draw();
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => { if (last) { last = null; publish(); } });
canvas.addEventListener("keydown", (event) => {
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  if (ways[event.key]) {
    const [x, y] = ways[event.key], step = event.shiftKey ? Number(size.value) : 1;
    at = [Math.max(0, Math.min(width - 1, at[0] + x * step)), Math.max(0, Math.min(height - 1, at[1] + y * step))];
  } else if (event.key === " ") { remember(); dab(...at); publish(); } else return;
  event.preventDefault();
  draw();
});
const parts = {
  left: (x, y) => x < width / 2, right: (x, y) => x >= width / 2,
  top: (x, y) => y < height / 2, bottom: (x, y) => y >= height / 2,
  middle: (x, y) => Math.abs(x + 0.5 - width / 2) < width / 4 && Math.abs(y + 0.5 - height / 2) < height / 4,
};
for (const button of element.querySelectorAll("[data-part]")) button.addEventListener("click", () => {
  remember();
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++)
    if (parts[button.dataset.part](x, y)) mask[y * width + x] = erase.checked ? 0 : 1;
  publish(); draw();
});
const changes = {
  clear: () => { remember(); mask.fill(0); },
  invert: () => { remember(); mask = mask.map((each) => 1 - each); },
  undo: () => { mask = steps.pop() || mask; },
};
for (const button of element.querySelectorAll("[data-do]")) button.addEventListener("click", () => {
  changes[button.dataset.do](); publish(); draw();
});
for (const name of ["input", "change"]) size.addEventListener(name, draw);
const show = () => {
  const next = new Image();
  next.onload = () => {
    picture = next;
    if (next.naturalWidth !== width || next.naturalHeight !== height) {
      width = canvas.width = next.naturalWidth; height = canvas.height = next.naturalHeight;
      mask = new Uint8Array(width * height); steps = []; at = [width >> 1, height >> 1];
      size.value = Math.max(1, Math.round(width / 8));
      publish();
    }
    draw();
  };
  if (props.picture) next.src = props.picture;
};
watch("picture", show);
draw(); show();
"""

CSS = """
.uploader .drop { display: block; padding: 1rem; border: 1.5px dashed var(--border-color-primary); border-radius: 8px;
  cursor: pointer; }
.uploader .drop:hover, .uploader .drop.over, .uploader .drop:focus-within { border-color: var(--color-accent);
  background: var(--background-fill-secondary); }
.uploader .what { display: block; font-weight: 600; }
.uploader .help { display: block; font-size: .85rem; color: var(--soft); margin-bottom: .5rem; }
.uploader input[type=file] { font-size: .85rem; max-width: 100%; color: var(--body-text-color); }
.uploader .said, .painter .said { font-size: .85rem; color: var(--soft); margin: .4rem 0 0;
  min-height: 1.2em; overflow-wrap: anywhere; }
.painter { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.painter .easel { position: relative; width: min(100%, 256px); aspect-ratio: 1; overflow: hidden; border-radius: 4px;
  background: repeating-conic-gradient(#8883 0 25%, #0000 0 50%) 0 0 / 16px 16px; }
.painter canvas { width: 100%; height: 100%; image-rendering: pixelated; touch-action: none; cursor: crosshair;
  display: block; }
.painter canvas:focus-visible { outline: 3px solid var(--color-accent); outline-offset: -3px; }
.painter .brush { position: absolute; border: 1.5px solid #fff; box-shadow: 0 0 0 1px #000; pointer-events: none;
  opacity: 0; }
.painter .easel:hover .brush, .painter canvas:focus + .brush { opacity: 1; }
.painter .tools { flex: 1 1 220px; min-width: 0; }
.painter .row { display: flex; flex-wrap: wrap; gap: .4rem .6rem; align-items: center; margin-bottom: .5rem;
  font-size: .9rem; }
.painter label { display: inline-flex; align-items: center; gap: .4rem; color: var(--body-text-color); }
.painter button { margin: 0; padding: .4rem .7rem; border-radius: 6px; border: 1px solid var(--border-color-primary);
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); cursor: pointer;
  font-size: .85rem; }
.painter button:hover { border-color: var(--color-accent); }
.painter button:focus-visible, .painter input:focus-visible { outline: 2px solid var(--color-accent);
  outline-offset: 2px; }
"""
