"use strict";
// The images of the test: filtered, sorted, shown a screenful at a time. All text from outside becomes text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const [grid, count, more] = [byId("grid"), byId("count"), byId("more")];
  const [outcome, truth, predicted, least, most, sort, heat] =
    ["outcome", "truth", "predicted", "least", "most", "sort", "heat"].map(byId);
  const dialog = byId("viewer");
  const CHUNK = 60;
  let shown = [];
  let drawn = 0;
  let current = 0;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  // An image's scores begin with its answer, and go on with the likeliest of the other classes.
  data.images.forEach((image) => {
    [[image.best, image.confidence]] = image.scores;
  });

  for (const [select, first] of [[truth, "any"], [predicted, "any"]]) {
    select.append(new Option(first, ""));
    data.classes.forEach((label, index) => select.append(new Option(label, index)));
  }

  // From yellow to red by the strength of the evidence, the weaker the more transparent.
  const heatMap = (image) => {
    const [width, height, encoded] = image.map;
    const cells = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    cells.forEach((value, index) => pixels.data.set([255, Math.round(220 * (1 - value / 255)), 0, value], 4 * index));
    context.putImageData(pixels, 0, 0);
    return canvas;
  };
  const picture = (image) => {
    const frame = element("span", "picture");
    const thumbnail = element("img");
    thumbnail.src = `data:image/jpeg;base64,${image.thumbnail}`;
    thumbnail.alt = "";
    frame.append(thumbnail);
    if (heat.checked && image.map) {
      // The network saw the picture whole, centred in a square, as it is shown here.
      const map = heatMap(image);
      map.style.clipPath = `inset(${50 * (1 - image.height / Math.max(image.width, image.height))}% ` +
        `${50 * (1 - image.width / Math.max(image.width, image.height))}%)`;
      frame.append(map);
    }
    return frame;
  };
  const bar = (share) => {
    const frame = element("span", "bar");
    const filled = element("i");
    filled.style.width = `${100 * share}%`;
    frame.append(filled);
    return frame;
  };
  const verdict = (image) => (image.best === image.truth ? "✓" : "✗");

  const card = (image, position) => {
    const made = element("button", `card ${image.best === image.truth ? "right" : "wrong"}`);
    made.type = "button";
    const caption = element("span", "caption");
    const said = element("span", "said");
    said.append(element("span", "", `${verdict(image)} ${data.classes[image.best]}`), element("span", "", percent(image.confidence)));
    caption.append(said, bar(image.confidence));
    if (image.best !== image.truth) caption.append(element("span", "faint", `is ${data.classes[image.truth]}`));
    made.append(picture(image), caption);
    made.addEventListener("click", () => open(position));
    return made;
  };
  const draw = () => {
    const end = Math.min(drawn + CHUNK, shown.length);
    const part = document.createDocumentFragment();
    for (; drawn < end; drawn += 1) part.append(card(shown[drawn], drawn));
    grid.append(part);
    more.hidden = drawn >= shown.length;
  };
  const redraw = () => {
    grid.replaceChildren();
    drawn = 0;
    draw();
  };

  const orders = {
    unsure: (a, b) => a.confidence - b.confidence,
    sure: (a, b) => b.confidence - a.confidence,
    path: (a, b) => (a.path < b.path ? -1 : Number(a.path > b.path)),
  };
  const apply = () => {
    // An empty field is no bound.
    const [low, high] = [Number(least.value) / 100, Number(most.value || 100) / 100];
    shown = data.images.filter((image) =>
      (outcome.value === "" || (outcome.value === "right") === (image.best === image.truth)) &&
      (truth.value === "" || image.truth === Number(truth.value)) &&
      (predicted.value === "" || image.best === Number(predicted.value)) &&
      image.confidence >= low - 5e-5 && image.confidence <= high + 5e-5);
    shown.sort(orders[sort.value]);
    count.textContent = `${shown.length} of ${data.images.length} images`;
    redraw();
  };

  const open = (position) => {
    if (!shown.length) return;
    current = (position + shown.length) % shown.length;
    const image = shown[current];
    byId("title").textContent = `${verdict(image)} ${data.classes[image.best]}`;
    byId("path").textContent = image.path;
    byId("position").textContent = `${current + 1} of ${shown.length}; true class: ${data.classes[image.truth]}`;
    byId("large").replaceChildren(picture(image));
    byId("scores").replaceChildren(...image.scores.flatMap(([index, score]) => [
      element("span", index === image.truth ? "truth" : "", data.classes[index]), bar(score), element("span", "", percent(score))]));
    if (!dialog.open) dialog.showModal();
  };

  // A link such as #images?truth=0&predicted=2 sets the filters.
  const follow = () => {
    const [section, query] = location.hash.slice(1).split("?");
    if (section !== "images" || query === undefined) return;
    const wanted = new URLSearchParams(query);
    outcome.value = "";
    [least.value, most.value] = [0, 100];
    truth.value = wanted.get("truth") ?? "";
    predicted.value = wanted.get("predicted") ?? "";
    apply();
    byId("images").scrollIntoView();
  };

  for (const control of [outcome, truth, predicted, least, most, sort]) control.addEventListener("input", apply);
  heat.addEventListener("input", () => { redraw(); if (dialog.open) open(current); });
  byId("reset").addEventListener("click", () => {
    [outcome, truth, predicted].forEach((control) => { control.value = ""; });
    [least.value, most.value, sort.value] = [0, 100, "unsure"];
    apply();
  });
  byId("previous").addEventListener("click", () => open(current - 1));
  byId("next").addEventListener("click", () => open(current + 1));
  byId("close").addEventListener("click", () => dialog.close());
  byId("toggle").addEventListener("click", () => { heat.checked = !heat.checked; heat.dispatchEvent(new Event("input")); });
  document.addEventListener("keydown", (event) => {
    if (!dialog.open || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") open(current - 1);
    else if (event.key === "ArrowRight") open(current + 1);
    else if (event.key === "h") byId("toggle").click();
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    while (drawn <= current && drawn < shown.length) draw();
    grid.children[current]?.focus();
  });
  window.addEventListener("hashchange", follow);
  // The same link again changes no address.
  document.addEventListener("click", (event) => { if (event.target.closest("a")?.hash === location.hash) follow(); });
  more.addEventListener("click", draw);
  new IntersectionObserver((seen) => { if (seen.some((entry) => entry.isIntersecting)) draw(); },
    { rootMargin: "600px" }).observe(more);
  if (!data.images.some((image) => image.map)) {
    heat.disabled = true;
    byId("toggle").hidden = true;
  }
  apply();
  follow();
})();
