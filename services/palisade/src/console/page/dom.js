// Elements, texts and numbers.

/** Creates an element. Keys of `properties` with a hyphen, `role` and `scope` are attributes. */
export function element(tag, properties = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") created.setAttribute(name, value);
    else created[name] = value;
  }
  created.append(...children);
  return created;
}

export const byId = (id) => document.getElementById(id);

/** Sets the text only if it changes, which keeps selections and screen readers quiet. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Announces a change to screen readers. */
export function announce(text) {
  byId("announcements").textContent = text;
}

/**
 * Keeps one row of `body` per item, in the order of `items`. Rows are reused, so that focus stays.
 * `create` returns a row, `update` fills it.
 */
export function keepRows(body, items, key, create, update) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let previous = null;
  for (const item of items) {
    const name = key(item);
    const row = old.get(name) ?? create(item);
    old.delete(name);
    row.dataset.key = name;
    update(row, item);
    const next = previous ? previous.nextElementSibling : body.firstElementChild;
    if (next !== row) body.insertBefore(row, next);
    previous = row;
  }
  old.forEach((row) => row.remove());
}

/** Creates a table row: a heading, then `cells` empty cells of the class `number`. */
export function numberRow(heading, cells) {
  const row = element("tr", {}, element("th", { scope: "row" }, heading));
  for (let cell = 0; cell < cells; cell += 1) row.append(element("td", { className: "number" }));
  return row;
}

export function setNumber(cell, text, isQuiet, className = "") {
  setText(cell, text);
  cell.className = `number ${isQuiet ? "quiet" : className}`;
}

export function rate(perSecond) {
  if (perSecond === null) return "–";
  return perSecond < 10 ? perSecond.toFixed(1) : perSecond.toFixed(0);
}

export function percent(share) {
  if (share === null || Number.isNaN(share)) return "–";
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function milliseconds(ms) {
  if (ms === null) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function timeOfDay(ms) {
  return new Date(ms).toLocaleTimeString(undefined, { hour12: false });
}
