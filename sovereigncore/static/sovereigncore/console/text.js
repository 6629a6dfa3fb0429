// Shows what people and models wrote: paragraphs with their lines as written, and fenced code. It
// makes elements and puts text into them, never HTML. No links either: a model can be talked into
// writing addresses that carry away what it was told.

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;

/** `text` as `[{ kind: "text" | "code", text }]`. A fence that is not closed yet is code so far. */
export function blocksOf(text) {
  const blocks = [];
  let lines = [];
  let fence = "";

  function finish(kind) {
    if (kind === "code" || lines.length > 0) blocks.push({ kind, text: lines.join("\n") });
    lines = [];
  }

  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    const mark = FENCE.exec(line)?.[1] ?? "";
    if (fence) {
      const isClosed = mark.startsWith(fence) && line.trim() === mark;
      if (isClosed) finish("code");
      else lines.push(line);
      if (isClosed) fence = "";
    } else if (mark) {
      finish("text");
      fence = mark;
    } else if (line.trim() === "") {
      finish("text");
    } else {
      lines.push(line);
    }
  }
  finish(fence ? "code" : "text");
  return blocks;
}

/** Make `element` show `text`. What is shown already stays, so that a growing text flickers nowhere
 * and keeps what is selected in it. */
export function showText(element, text) {
  const blocks = blocksOf(text);
  blocks.forEach(({ kind, text: wanted }, index) => {
    let block = element.children[index];
    if (block?.dataset.kind !== kind) {
      const made = emptyBlock(kind);
      if (block) block.replaceWith(made);
      else element.append(made);
      block = made;
    }
    const shown = (block.firstElementChild ?? block).firstChild;
    if (wanted.startsWith(shown.data)) shown.appendData(wanted.slice(shown.data.length));
    else shown.data = wanted;
  });
  while (element.children.length > blocks.length) element.lastElementChild.remove();
}

function emptyBlock(kind) {
  const block = document.createElement(kind === "code" ? "pre" : "p");
  block.dataset.kind = kind;
  const holder = kind === "code" ? document.createElement("code") : block;
  if (holder !== block) {
    block.append(holder);
    block.tabIndex = 0; // long lines are scrolled to with the keyboard too
  }
  block.dir = kind === "code" ? "ltr" : "auto";
  holder.append(document.createTextNode(""));
  return block;
}
