// The study page: an image on a canvas, windowed by the box; saliency apart, off until asked for.
import { keys } from "./page.js";

const MOVING = 640, STILL = 1536, WHOLE = 4096; // longest side asked for, in pixels
const KEPT = 12; // pictures kept in memory; nothing of a patient goes to the browser's disk

class Viewer {
  constructor(place) {
    this.place = place;
    this.canvas = place.querySelector("canvas");
    this.canvas.hidden = false;
    this.controls = document.querySelector("[data-controls]");
    this.controls.hidden = false;
    this.readout = place.querySelector("[data-readout]");
    this.pictures = new Map();
    this.inverted = false;
    this.window = null; // {centre, width}, or null: as sent
    this.zoom = 1; this.x = 0; this.y = 0; // screen pixels
    this.image = null; this.saliency = null; this.overlaid = false; this.opacity = 0.5;
    this.pointers = new Map();
    this.listen();
    this.start();
  }

  async start() {
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    try {
      const answer = await fetch(this.place.dataset.grey);
      if (!answer.ok) throw new Error();
      this.grey = await answer.json();
      await this.load(STILL);
      this.place.dataset.ready = "";
    } catch {
      this.readout.textContent = this.place.dataset.unreadable;
      this.controls.hidden = true;
    }
  }

  // --- pictures

  async load(size) {
    const asked = new URLSearchParams({ size });
    if (this.window) asked.set("window", `${this.window.centre.toFixed(2)},${this.window.width.toFixed(2)}`);
    if (this.inverted) asked.set("invert", "true");
    const address = `${this.place.dataset.picture}?${asked}`;
    this.wanted = address;
    this.tell();
    if (!this.pictures.has(address)) {
      if (this.loading) { this.again = size; return; } // one at a time; the newest wish follows
      this.loading = true;
      try {
        const answer = await fetch(address);
        if (!answer.ok) throw new Error();
        this.pictures.set(address, await createImageBitmap(await answer.blob()));
        if (this.pictures.size > KEPT) {
          const [oldest, picture] = this.pictures.entries().next().value;
          this.pictures.delete(oldest);
          if (picture !== this.image) picture.close();
        }
      } finally { this.loading = false; }
    }
    if (this.pictures.has(this.wanted) || !this.image) this.image = this.pictures.get(this.wanted) ?? this.pictures.get(address);
    else this.image = this.pictures.get(address) ?? this.image;
    this.draw();
    if (this.again) { const next = this.again; this.again = 0; await this.load(next); }
  }

  settle() { // after moving: the sharp picture
    clearTimeout(this.later);
    this.later = setTimeout(() => this.load(this.zoom > 1.2 ? WHOLE : STILL).catch(() => {}), 180);
  }

  async overlay(on) {
    if (!this.place.dataset.saliency) return;
    this.overlaid = on;
    const box = this.controls.querySelector("[data-overlay]");
    box.checked = on;
    this.controls.querySelector("[data-opacity]").disabled = !on;
    this.place.querySelector("[data-overlaid]").hidden = !on;
    if (on && !this.saliency) {
      const answer = await fetch(this.place.dataset.saliency);
      if (answer.ok) this.saliency = await createImageBitmap(await answer.blob());
    }
    this.draw();
  }

  // --- drawing

  draw() {
    const { canvas, grey, image } = this;
    const dense = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * dense), height = Math.round(canvas.clientHeight * dense);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const paper = canvas.getContext("2d");
    paper.fillStyle = "#000";
    paper.fillRect(0, 0, width, height);
    if (!image || !grey) return;
    this.fitted = Math.min(width / grey.columns, height / grey.rows);
    const scale = this.fitted * this.zoom;
    const w = grey.columns * scale, h = grey.rows * scale;
    const left = (width - w) / 2 + this.x * dense, top = (height - h) / 2 + this.y * dense;
    paper.imageSmoothingEnabled = scale < 3;
    paper.imageSmoothingQuality = "high";
    paper.drawImage(image, left, top, w, h);
    if (this.overlaid && this.saliency) {
      paper.globalAlpha = this.opacity;
      paper.imageSmoothingEnabled = true;
      paper.drawImage(this.saliency, left, top, w, h);
      paper.globalAlpha = 1;
    }
  }

  tell() {
    const { centre, width } = this.window ?? this.grey;
    this.readout.textContent = this.place.dataset.window.replace("{width}", Math.round(width)).replace("{centre}", Math.round(centre));
    const preset = this.controls.querySelector("[data-preset]");
    preset.querySelector("[value=own]").hidden = preset.value !== "own";
  }

  // --- what a person does

  move(across, down) { // window by a share of the range
    if (!this.grey) return;
    const range = Math.max(1, this.grey.high - this.grey.low);
    const now = this.window ?? { centre: this.grey.centre, width: this.grey.width };
    this.window = { centre: now.centre + down * range, width: Math.max(1, now.width + across * range) };
    this.controls.querySelector("[data-preset]").value = "own";
    this.load(MOVING).catch(() => {});
    this.settle();
  }

  preset(name) {
    const { low, high, centre, width } = this.grey;
    const presets = {
      sent: null,
      full: { centre: (low + high) / 2, width: Math.max(1, high - low) },
      narrow: { centre, width: Math.max(1, width / 2) },
      wide: { centre, width: width * 1.5 },
    };
    if (name in presets) this.window = presets[name];
    this.load(STILL).catch(() => {});
  }

  invert() {
    this.inverted = !this.inverted;
    this.controls.querySelector("[data-invert]").setAttribute("aria-pressed", this.inverted);
    this.load(STILL).catch(() => {});
  }

  scale(by) {
    if (by === "fit") { this.zoom = 1; this.x = 0; this.y = 0; }
    else if (by === "real") this.zoom = 1 / this.fitted; // one image pixel on one screen pixel
    else this.zoom = Math.min(16, Math.max(0.25, this.zoom * by));
    this.draw();
    this.settle();
  }

  pan(x, y) { this.x += x; this.y += y; this.draw(); }

  key(event) {
    const step = 0.02;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) this.pan(arrow[0] * -40, arrow[1] * -40);
    else if (arrow) this.move(arrow[0] * step, arrow[1] * step);
    else if (event.key === "+" || event.key === "=") this.scale(1.25);
    else if (event.key === "-") this.scale(0.8);
    else if (event.key === "0") this.scale("fit");
    else if (event.key === "Escape") this.canvas.blur();
    else return;
    event.preventDefault();
  }

  listen() {
    const { canvas, controls } = this;
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls until the image is chosen
      event.preventDefault();
      this.scale(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => this.pointer(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    controls.querySelector("[data-preset]").addEventListener("change", (event) => this.preset(event.target.value));
    controls.querySelector("[data-invert]").addEventListener("click", () => this.invert());
    for (const button of controls.querySelectorAll("[data-zoom]")) {
      const by = { in: 1.25, out: 0.8 }[button.dataset.zoom] ?? button.dataset.zoom;
      button.addEventListener("click", () => this.scale(by));
    }
    controls.querySelector("[data-overlay]")?.addEventListener("change", (event) => this.overlay(event.target.checked));
    controls.querySelector("[data-opacity]")?.addEventListener("input", (event) => { this.opacity = event.target.value / 100; this.draw(); });
  }

  pointer(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const x = event.clientX - before.clientX, y = event.clientY - before.clientY;
    if (this.pointers.size === 2) { // two fingers: zoom and move
      const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      const distance = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
      this.zoom = Math.min(16, Math.max(0.25, this.zoom * distance(event) / Math.max(1, distance(before))));
      this.pan(x / 2, y / 2);
      this.settle();
    } else if (event.buttons & 6 || event.shiftKey) this.pan(x, y); // middle or right button
    else this.move(x / 400, y / 400);
    this.pointers.set(event.pointerId, event);
  }
}

const place = document.querySelector("[data-viewer]");
const viewer = place && new Viewer(place);
const follow = (selector) => document.querySelector(selector)?.click();

keys.set("j", () => follow("a[rel=next]"));
keys.set("k", () => follow("a[rel=prev]"));
for (const [key, kind] of [["a", "accept"], ["r", "reject"], ["e", "edit"]]) keys.set(key, () => follow(`[data-verdict=${kind}]`));
if (viewer) {
  keys.set("w", () => viewer.canvas.focus());
  keys.set("o", () => viewer.overlay(!viewer.overlaid));
  keys.set("i", () => viewer.invert());
  keys.set("f", () => viewer.scale("fit"));
}
