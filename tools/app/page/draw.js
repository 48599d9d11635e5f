// Boxes over an image. Lengths are in pixels of the image; `scale`: pixels of the canvas per pixel of the image.

/** Line width and text height in the style of the images that detect.py writes. */
export function styleForFile(width, height) {
  const side = (width + height) / 2;
  const line = Math.max(1, Math.round(side / 320));
  return { line, text: Math.max(10, Math.round(side / 42), Math.round(3.5 * line + 3)) };
}

/** Line width and text height for the screen, where labels are as large as the text of the page. */
export function styleForScreen() {
  const ratio = window.devicePixelRatio || 1;
  return { line: Math.round(2 * ratio), text: Math.round(13 * ratio) };
}

/**
 * Draw an image and its boxes into a canvas, whose size becomes that of the image times `scale`.
 * @param {HTMLCanvasElement} canvas
 * @param {{bitmap: ImageBitmap, width: number, height: number, boxes: number[][]}} item boxes: x1 y1 x2 y2 conf class
 * @param {{name: string, color: string, text: string}[]} classes
 * @param {{scale?: number, line: number, text: number, labels: boolean, chosen?: number}} options line width and text
 *     height in pixels of the canvas; chosen: index of the highlighted box, -1 for none
 */
export function drawBoxes(canvas, item, classes, { scale = 1, line, text, labels, chosen = -1 }) {
  canvas.width = Math.round(item.width * scale);
  canvas.height = Math.round(item.height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(item.bitmap, 0, 0, canvas.width, canvas.height);
  const order = item.boxes.map((_, index) => index).reverse(); // the most confident on top
  if (chosen >= 0) order.push(chosen);
  for (const index of order) {
    const thick = index === chosen ? 2 * line + 1 : line;
    drawBox(context, item.boxes[index], classes, { scale, thick, text, labels: labels || index === chosen });
  }
}

function drawBox(context, [x1, y1, x2, y2, confidence, kind], classes, { scale, thick, text, labels }) {
  const { name, color, text: textColor } = classes[kind];
  const [left, top, right, bottom] = [x1, y1, x2, y2].map((value) => value * scale);
  context.strokeStyle = color;
  context.lineWidth = thick;
  context.strokeRect(left, top, right - left, bottom - top);
  if (!labels) return;
  const label = `${name} ${confidence.toFixed(2)}`;
  context.font = `${text}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const margin = Math.round(text / 4);
  const width = context.measureText(label).width + 2 * margin;
  const height = Math.round(text * 1.25);
  // Above the box, or inside where there is no space; never outside the image.
  const x = Math.max(0, Math.min(left - thick / 2, context.canvas.width - width));
  const above = top - thick / 2 - height;
  const y = above >= 0 ? above : Math.max(0, top - thick / 2);
  context.fillStyle = color;
  context.fillRect(x, y, width, height);
  context.fillStyle = textColor;
  context.fillText(label, x + margin, y + height / 2 + 1);
}

/** Draw the middle of an image into a small canvas that it covers. */
export function drawThumbnail(canvas, image, width, height) {
  const scale = Math.max(canvas.width / width, canvas.height / height);
  const [w, h] = [width * scale, height * scale];
  canvas.getContext("2d").drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
}

/** Pixels of the canvas per pixel of the image, above 1 for small images, so that their boxes and labels are sharp. */
export function scaleFor(width, height, space) {
  const wanted = Math.min(space.width / width, space.height / height) * (window.devicePixelRatio || 1);
  return Math.min(Math.max(1, wanted), 8);
}
