// Boxes over a picture. All lengths are in pixels of the picture; `scale` is how many pixels of the canvas one takes.

/** Width of the lines and height of the text that suit a picture, as in the pictures that detect.py writes. */
export function inPicture(width, height) {
  const side = (width + height) / 2;
  const line = Math.max(1, Math.round(side / 320));
  return { line, text: Math.max(10, Math.round(side / 42), Math.round(3.5 * line + 3)) };
}

/** The same for the screen, where the text should be as large as the text around the picture. */
export function onScreen() {
  const ratio = window.devicePixelRatio || 1;
  return { line: Math.round(2 * ratio), text: Math.round(13 * ratio) };
}

/**
 * Draw a picture and its boxes into a canvas, whose size becomes that of the picture times `scale`.
 * @param {HTMLCanvasElement} canvas
 * @param {{bitmap: ImageBitmap, width: number, height: number, boxes: number[][]}} picture boxes: x1 y1 x2 y2 conf class
 * @param {{name: string, color: string, text: string}[]} classes
 * @param {{scale?: number, line: number, text: number, labels: boolean, chosen?: number}} options width of the lines and
 *     height of the text in pixels of the canvas; chosen: the box that stands out, -1 for none
 */
export function drawPicture(canvas, picture, classes, { scale = 1, line, text, labels, chosen = -1 }) {
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture.bitmap, 0, 0, canvas.width, canvas.height);
  const order = picture.boxes.map((_, index) => index).reverse(); // the most confident on top
  if (chosen >= 0) order.push(chosen);
  for (const index of order) {
    const thick = index === chosen ? 2 * line + 1 : line;
    drawBox(pen, picture.boxes[index], classes, { scale, thick, text, labels: labels || index === chosen });
  }
}

function drawBox(pen, [x1, y1, x2, y2, confidence, kind], classes, { scale, thick, text, labels }) {
  const { name, color, text: ink } = classes[kind];
  const [left, top, right, bottom] = [x1, y1, x2, y2].map((value) => value * scale);
  pen.strokeStyle = color;
  pen.lineWidth = thick;
  pen.strokeRect(left, top, right - left, bottom - top);
  if (!labels) return;
  const label = `${name} ${confidence.toFixed(2)}`;
  pen.font = `${text}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const margin = Math.round(text / 4);
  const width = pen.measureText(label).width + 2 * margin;
  const height = Math.round(text * 1.25);
  // Above the box, or inside where there is no room; never outside the picture.
  const x = Math.max(0, Math.min(left - thick / 2, pen.canvas.width - width));
  const above = top - thick / 2 - height;
  const y = above >= 0 ? above : Math.max(0, top - thick / 2);
  pen.fillStyle = color;
  pen.fillRect(x, y, width, height);
  pen.fillStyle = ink;
  pen.fillText(label, x + margin, y + height / 2 + 1);
}

/** Draw the middle of an image into a small canvas that it covers. */
export function drawThumbnail(canvas, image, width, height) {
  const scale = Math.max(canvas.width / width, canvas.height / height);
  const [w, h] = [width * scale, height * scale];
  canvas.getContext("2d").drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
}

/** How many pixels of the canvas a pixel of the picture gets, so that small pictures have sharp boxes and labels. */
export function scaleFor(width, height, room) {
  const wanted = Math.min(room.width / width, room.height / height) * (window.devicePixelRatio || 1);
  return Math.min(Math.max(1, wanted), 8);
}
