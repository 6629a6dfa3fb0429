// Server-sent events out of text that comes in whatever pieces the network makes. Knows no fetch.
// After https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

// A carriage return at the end of a piece may be half of a line end: it waits for the next piece.
const LINE_END = /\r\n|\n|\r(?!$)/g;

/** A function to feed pieces to; each whole event goes to `onEvent({ name, data })`. */
export function createParser(onEvent) {
  let unread = "";
  let name = "";
  let data = [];

  function readLine(line) {
    if (line === "") {
      if (data.length > 0) onEvent({ name: name || "message", data: data.join("\n") });
      name = "";
      data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // empty for a comment
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    if (field === "data") data.push(value);
  }

  return function feed(piece) {
    unread += piece;
    let from = 0;
    for (const end of unread.matchAll(LINE_END)) {
      readLine(unread.slice(from, end.index));
      from = end.index + end[0].length;
    }
    unread = unread.slice(from);
  };
}
