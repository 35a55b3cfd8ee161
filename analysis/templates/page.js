"use strict";
// What can be read is all in the page; this adds what can be done with it.

/** A heading sorts its table by its column: upwards, downwards, then as it was. */
function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = [...table.querySelectorAll("th[scope=col]")];
  const collator = new Intl.Collator("en", { numeric: true });
  if (original.length < 2) return;

  headings.forEach((heading, column) => {
    const cells = original.map((row) => row.cells[column]);
    const numeric = cells.some((cell) => "value" in cell.dataset);
    const keys = new Map(original.map((row, index) => {
      const key = numeric ? Number(cells[index].dataset.value ?? NaN) : cells[index].querySelector("bdi").textContent;
      return [row, key === "" || Number.isNaN(key) ? null : key];
    }));
    const sorted = (direction) => [...original].sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === null || b === null) return (a === null) - (b === null); // last, whichever way the others go
      return a === b ? 0 : direction * (numeric ? a - b : collator.compare(a, b));
    });

    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const state = { ascending: "descending", descending: "" }[heading.getAttribute("aria-sort")] ?? "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      if (state) heading.setAttribute("aria-sort", state);
      body.append(...(state ? sorted(state === "ascending" ? 1 : -1) : original));
    });
  });
}

/** Two images of an example, one above the other up to a movable edge; enlarged, they are scrolled together. */
function comparable(gallery) {
  const examples = [...gallery.querySelectorAll(".example")];
  const images = examples.map((one) => [...one.querySelectorAll(".tiles > li > img")]);
  const viewer = document.getElementById("viewer").content.firstElementChild.cloneNode(true);
  const [example, left, right, zoom, edge] =
    ["example", "left", "right", "zoom", "edge"].map((name) => viewer.querySelector(`[name=${name}]`));
  const [stage, canvas, line, amount] =
    [".stage", ".canvas", ".line", ".amount"].map((name) => viewer.querySelector(name));

  function fill(select, texts, chosen) {
    select.replaceChildren(...texts.map((text, index) => new Option(text, index)));
    select.value = Math.min(chosen, texts.length - 1);
  }

  function caption(image) {
    const [name, quality] = [".name", ".quality"].map((part) => image.closest("li").querySelector(part).textContent);
    return quality ? `${name} (${quality})` : name;
  }

  /** Choose the images and show them. */
  function choose(number, leftTile, rightTile) {
    const captions = images[number].map(caption);
    example.value = number;
    fill(left, captions, leftTile);
    fill(right, captions, rightTile);
    const [upper, lower] = [left, right].map((select) => images[number][select.value].cloneNode());
    upper.classList.add("upper");
    canvas.replaceChildren(lower, upper, line);
    stage.style.aspectRatio = `${upper.getAttribute("width")} / ${upper.getAttribute("height")}`;
  }

  /** The edge is at a share of what is seen, not of the image: it must not leave the stage when that is scrolled. */
  function moveEdge() {
    const position = stage.scrollLeft + (stage.clientWidth * edge.value) / 100;
    canvas.style.setProperty("--edge", `${(100 * position) / canvas.clientWidth}%`);
  }

  /** Enlarge around the middle of what is seen. */
  function enlarge() {
    const [x, y] = [stage.clientWidth / 2, stage.clientHeight / 2];
    const [across, down] = [(stage.scrollLeft + x) / canvas.clientWidth, (stage.scrollTop + y) / canvas.clientHeight];
    canvas.style.width = `${100 * zoom.value}%`;
    canvas.style.imageRendering = zoom.value > 1 ? "pixelated" : "";
    stage.scrollTo(across * canvas.clientWidth - x, down * canvas.clientHeight - y);
    amount.textContent = `${zoom.value}×`;
    zoom.ariaValueText = amount.textContent;
    moveEdge();
  }

  /** A pointer drags the edge, and a mouse what is on the stage; a finger scrolls that without our help. */
  function drag(start) {
    const onEdge = start.target === line;
    if (start.button || !(onEdge || start.pointerType === "mouse")) return;
    const [x, y] = [stage.scrollLeft + start.clientX, stage.scrollTop + start.clientY];
    const move = (now) => {
      if (onEdge) {
        edge.value = (100 * (now.clientX - stage.getBoundingClientRect().left)) / stage.clientWidth;
        moveEdge();
      } else {
        stage.scrollTo(x - now.clientX, y - now.clientY);
      }
    };
    stage.setPointerCapture(start.pointerId);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", move), { once: true });
  }

  images.forEach((tiles, number) => tiles.forEach((image, tile) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Compare";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => {
      const other = Number(left.value) === tile ? right.value : left.value;
      choose(number, other, tile);
      stage.scrollIntoView({ block: "center" });
      edge.focus({ preventScroll: true });
    });
  }));
  example.addEventListener("change", () => choose(example.value, left.value, right.value));
  for (const select of [left, right]) {
    select.addEventListener("change", () => choose(example.value, left.value, right.value));
  }
  zoom.addEventListener("input", enlarge);
  edge.addEventListener("input", moveEdge);
  stage.addEventListener("scroll", moveEdge);
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("dragstart", (event) => event.preventDefault());

  viewer.setAttribute("aria-labelledby", `${gallery.id}-title`);
  gallery.querySelector("figcaption").after(viewer);
  fill(example, examples.map((one) => one.querySelector("h4").textContent), 0);
  choose(0, 1, images[0].length - 1);
  enlarge();
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll(".gallery:has(.tiles img)").forEach(comparable);
