// Tiles are buttons, so keyboards and screen readers know them; texts are set as text, never parsed as HTML.

function button(tile, index) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "trialign-tile";
  element.dataset.key = tile.key;
  element.title = tile.title;
  element.tabIndex = index === 0 ? 0 : -1;
  element.setAttribute("aria-label", tile.note ? `${tile.title}, ${tile.note}` : tile.title);
  if (tile.frame) element.style.borderColor = tile.frame;
  const picture = document.createElement(tile.image ? "img" : "div");
  if (tile.image) {
    picture.src = tile.image;
    picture.alt = "";
  }
  picture.className = "trialign-picture";
  const title = document.createElement("span");
  title.className = "trialign-title";
  title.textContent = tile.title;
  const note = document.createElement("code");
  note.textContent = tile.note;
  element.append(picture, title, note);
  return element;
}

/** The index that an arrow key leads to, from `index` in a grid whose rows hold `columns` of `count` tiles. */
function target(key, index, columns, count) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (step === undefined) return null;
  return Math.min(Math.max(index + step, 0), count - 1);
}

function columnsOf(buttons) {
  const top = buttons[0].offsetTop;
  const next = buttons.findIndex((element) => element.offsetTop !== top);
  return next === -1 ? buttons.length : next;
}

function render({ model, el }) {
  const grid = document.createElement("div");
  grid.className = "trialign-grid";
  grid.setAttribute("role", "group");
  el.append(grid);

  const buttons = () => [...grid.querySelectorAll("button")];

  function mark() {
    for (const element of buttons()) {
      const pressed = Number(element.dataset.key) === model.get("chosen");
      element.setAttribute("aria-pressed", String(pressed));
    }
  }

  function draw() {
    const tiles = model.get("tiles");
    const focused = buttons().indexOf(document.activeElement);
    grid.replaceChildren(...tiles.map(button));
    if (!tiles.length) grid.textContent = "none";
    mark();
    if (focused !== -1) focus(Math.min(focused, tiles.length - 1));
  }

  // Else who walks by keyboard would be thrown back to the top of the page whenever tiles change.
  function focus(index) {
    const all = buttons();
    if (!all.length) return;
    for (const element of all) element.tabIndex = -1;
    all[index].tabIndex = 0;
    all[index].focus();
  }

  const name = () => grid.setAttribute("aria-label", model.get("label"));

  grid.addEventListener("click", (event) => {
    const element = event.target.closest("button");
    if (!element) return;
    model.set("chosen", Number(element.dataset.key));
    model.save_changes();
  });

  grid.addEventListener("keydown", (event) => {
    const all = buttons();
    const index = all.indexOf(event.target);
    if (index === -1) return;
    const next = target(event.key, index, columnsOf(all), all.length);
    if (next === null) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would move to another cell
    focus(next);
  });

  name();
  draw();
  model.on("change:tiles", draw);
  model.on("change:chosen", mark);
  model.on("change:label", name);
  return () => {
    model.off("change:tiles", draw);
    model.off("change:chosen", mark);
    model.off("change:label", name);
  };
}

export default { render };
