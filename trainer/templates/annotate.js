"use strict";
// The annotation page. The files are the truth: after each change the page asks how they lie.
(() => {
  const token = document.documentElement.dataset.token;
  const byId = (id) => document.getElementById(id);
  const [grid, status, label, sort, limit] = ["grid", "status", "label", "sort", "limit"].map(byId);
  const EXCLUDED = "\u0000excluded";
  let page = { images: [], classes: [], total: 0, revision: 0 };
  let offset = 0;
  let selected = new Set();
  let anchor = 0;
  // Path of the picture that is shown large; none while it is being moved.
  let large = null;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const say = (text, warn = false) => {
    for (const place of [status, byId("said")]) {
      place.textContent = text;
      place.className = warn ? "warn" : "";
    }
  };
  const address = (path, values) => `${path}?${new URLSearchParams({ ...values, token })}`;
  const ask = async (path, body) => {
    const options = body === undefined ? {} :
      { method: "POST", headers: { "content-type": "application/json", "x-ikat-token": token }, body: JSON.stringify(body) };
    try {
      const answer = await fetch(path, options);
      const json = await answer.json();
      if (answer.ok) return json ?? {};
      say(json.error, true);
    } catch {
      say("The trainer does not answer: is it still running?", true);
    }
    return null;
  };

  // One request after the other: what a key asks for while a change is under way is meant for what lies there after it.
  let latest = Promise.resolve();
  const queue = (work) => (latest = latest.then(work, work));
  const load = () => queue(refresh);
  // An audit's page links to single images.
  const single = () => new URLSearchParams(location.hash.slice(1)).get("path");
  const refresh = async () => {
    const excluded = label.value === EXCLUDED;
    const query = { sort: sort.value, offset, limit: limit.value, excluded };
    if (!excluded && label.value) query.label = label.value;
    if (single()) query.path = single();
    const found = await ask(address("/api/images", query));
    if (!found) return false;
    if (query.label && !found.classes.some((known) => known.label === query.label)) {
      label.value = "";
      return refresh();
    }
    if (offset > 0 && offset >= found.total) {
      offset = Math.max(0, offset - Number(limit.value));
      return refresh();
    }
    page = found;
    const there = new Set(page.images.map((image) => image.path));
    selected = new Set([...selected].filter((path) => there.has(path)));
    show();
    return true;
  };

  const show = () => {
    const all = page.classes.reduce((sum, found) => sum + found.count, 0);
    const chosen = label.value;
    label.replaceChildren(new Option(`all (${all})`, ""), ...page.classes.map((found) => new Option(`${found.label} (${found.count})`, found.label)),
      new Option(`excluded (${page.excluded})`, EXCLUDED));
    label.value = [...label.options].some((option) => option.value === chosen) ? chosen : "";
    const pressed = [...byId("targets").children].indexOf(document.activeElement);
    byId("targets").replaceChildren(...page.classes.map((found, index) => {
      const button = element("button");
      button.type = "button";
      if (index < 9) button.append(element("b", "", `${index + 1} `));
      button.append(found.label, " ", element("small", "", String(found.count)));
      button.dataset.label = found.label;
      button.addEventListener("click", () => relabel(found.label));
      return button;
    }), (() => {
      const button = element("button", "", "x exclude");
      button.type = "button";
      button.addEventListener("click", exclude);
      return button;
    })());
    byId("targets").children[pressed]?.focus();
    const stop = [...grid.children].findIndex((made) => made.tabIndex === 0);
    const focused = grid.contains(document.activeElement);
    grid.replaceChildren(...page.images.map(card));
    const current = grid.children[Math.min(Math.max(stop, 0), page.images.length - 1)];
    if (current) current.tabIndex = 0;
    if (focused) current?.focus();
    if (byId("zoom").open) {
      // What was moved makes room for the next one.
      const at = page.images.findIndex((image) => image.path === large);
      if (!page.images.length) byId("zoom").close();
      else if (at < 0) zoom(Math.min(anchor, page.images.length - 1));
      else anchor = at;
    }
    byId("all").hidden = !single();
    byId("undo").disabled = !page.can_undo;
    byId("redo").disabled = !page.can_redo;
    const last = Math.min(offset + page.images.length, page.total);
    byId("place").textContent = page.total ? `${offset + 1} to ${last} of ${page.total}` : "no images";
    byId("previous").disabled = offset === 0;
    byId("next").disabled = last >= page.total;
  };

  const card = (image, index) => {
    const made = element("div", "card");
    made.tabIndex = -1;
    made.role = "option";
    made.dataset.path = image.path;
    made.setAttribute("aria-selected", selected.has(image.path));
    const frame = element("div", "frame");
    const picture = element("img");
    picture.loading = "lazy";
    picture.alt = "";
    picture.src = address("/thumbnail", { path: image.path });
    picture.addEventListener("error", () => frame.replaceChildren("cannot be shown"));
    frame.append(picture);
    made.append(frame, element("span", "", image.label), element("span", "name", image.path.split("/").slice(1).join("/")));
    if (image.suspicion !== null && image.suspicion > 0) made.append(element("span", "", `rather ${image.suggested}?`));
    made.title = image.path;
    made.addEventListener("click", (event) => { made.focus(); select(index, event); });
    made.addEventListener("dblclick", () => zoom(index));
    return made;
  };
  const outline = () => [...grid.children].forEach((made) => made.setAttribute("aria-selected", selected.has(made.dataset.path)));
  const mark = () => {
    outline();
    say(selected.size ? `${selected.size} selected` : "");
  };
  const clear = () => { selected = new Set(); mark(); };
  const select = (index, { shiftKey, ctrlKey, metaKey }) => {
    const path = page.images[index].path;
    if (shiftKey) {
      const [low, high] = [Math.min(anchor, index), Math.max(anchor, index)];
      page.images.slice(low, high + 1).forEach((image) => selected.add(image.path));
    } else if (ctrlKey || metaKey) {
      if (!selected.delete(path)) selected.add(path);
      anchor = index;
    } else {
      selected = new Set(selected.size === 1 && selected.has(path) ? [] : [path]);
      anchor = index;
    }
    mark();
  };

  const change = (path, body, done) => queue(async () => {
    const wanted = body();
    if (!wanted) return;
    const reply = await ask(path, wanted);
    // What was not moved is selected again, unless others are by now.
    if (!reply && !selected.size) selected = new Set(wanted.images ?? []);
    const followed = reply?.moved.find((made) => made.from === single());
    if (followed) history.replaceState(null, "", `#${new URLSearchParams({ path: followed.to })}`);
    // Told when it can be seen.
    if (!await refresh()) {
      outline();
      large = page.images[anchor]?.path ?? null;
      return;
    }
    if (!reply) return;
    const conflicts = reply.conflicts ?? [];
    const first = conflicts.length ? `; ${conflicts.length} not: ${conflicts[0].path}: ${conflicts[0].reason}` : "";
    say(`${done(reply)}${first}`, conflicts.length > 0);
  });
  const move = (path, body, done) => {
    if (!selected.size) {
      say("Select images first.", true);
      return;
    }
    const images = [...selected];
    selected = new Set();
    outline();
    change(path, () => ({ ...body, images }), done);
  };
  const relabel = (target) => move("/api/relabel", { label: target }, (reply) => `${reply.moved.length} moved to ${target}`);
  const exclude = () => move("/api/exclude", {}, (reply) => `${reply.moved.length} excluded`);
  const undo = () => change("/api/undo", () => page.can_undo && { revision: page.revision }, (reply) => `undone: ${reply.moved.length} moved back`);
  const redo = () => change("/api/redo", () => page.can_redo && { revision: page.revision }, (reply) => `redone: ${reply.moved.length} moved`);

  const zoom = (index) => {
    const image = page.images[index];
    if (!image) return;
    anchor = index;
    large = image.path;
    // A new element, as the old one would show the picture before until this one has come.
    const picture = element("img");
    picture.alt = "";
    picture.src = address("/picture", { path: image.path });
    picture.addEventListener("error", () => picture.replaceWith("cannot be shown"));
    picture.addEventListener("click", () => picture.classList.toggle("full"));
    byId("large").replaceChildren(picture);
    byId("caption").textContent = `${image.label}: ${image.path}`;
    if (!byId("zoom").open) byId("zoom").showModal();
  };
  byId("close").addEventListener("click", () => byId("zoom").close());
  byId("zoom").addEventListener("close", () => grid.children[anchor]?.focus());

  const turn = (pages) => {
    const next = offset + pages * Number(limit.value);
    if (next < 0 || next >= page.total) return;
    offset = next;
    clear();
    window.scrollTo(0, 0);
    load();
  };
  const restart = () => { history.replaceState(null, "", location.pathname + location.search); offset = 0; clear(); load(); };
  for (const control of [label, sort, limit]) control.addEventListener("input", restart);
  byId("undo").addEventListener("click", undo);
  byId("redo").addEventListener("click", redo);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("all").addEventListener("click", restart);
  byId("help").addEventListener("click", () => {
    byId("keys").hidden = !byId("keys").hidden;
    byId("help").setAttribute("aria-expanded", !byId("keys").hidden);
  });
  byId("new").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = byId("name").value.trim();
    if (await ask("/api/class", { label: name })) {
      byId("name").value = "";
      await load();
      say(`${name} added`);
    }
  });

  // One image alone is a stop of the Tab key, the one that had the focus last.
  grid.addEventListener("focusin", ({ target }) => { for (const made of grid.children) made.tabIndex = made === target ? 0 : -1; });
  // What gets the focus is not scrolled under the header.
  new ResizeObserver(([{ target }]) => { document.documentElement.style.scrollPaddingTop = `${target.offsetHeight + 8}px`; })
    .observe(document.querySelector("header"));
  const columns = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select") || event.altKey || event.metaKey) return;
    const zoomed = byId("zoom").open;
    // Caps Lock makes no other keys of letters.
    const key = event.key.length === 1 && !event.shiftKey ? event.key.toLowerCase() : event.key;
    const at = zoomed ? anchor : [...grid.children].indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: zoomed ? 1 : columns(), ArrowUp: zoomed ? -1 : -columns() }[key];
    if (event.ctrlKey && !["z", "y"].includes(key)) return;
    const send = (work) => {
      // The large picture may be on its way already; the next one was not meant.
      if (zoomed && large === null) return;
      if (zoomed) [selected, large] = [new Set([large]), null];
      work();
    };
    // A key that is held walks and turns pages, and changes nothing.
    if (event.repeat && /^([1-9xyzaf ]|Enter|Escape)$/.test(key)) { event.preventDefault(); return; }
    const picture = zoomed ? byId("large").querySelector("img") : null;
    if (picture && key === "f") picture.classList.toggle("full");
    else if (step !== undefined && picture?.classList.contains("full")) {
      byId("large").scrollBy(key.endsWith("Right") ? 100 : key.endsWith("Left") ? -100 : 0, key.endsWith("Down") ? 100 : key.endsWith("Up") ? -100 : 0);
    } else if (step !== undefined && page.images.length) {
      const next = Math.max(0, Math.min(page.images.length - 1, at < 0 ? 0 : at + step));
      if (zoomed) zoom(next); else grid.children[next].focus();
    } else if (/^[1-9]$/.test(key) && page.classes[key - 1]) {
      send(() => relabel(page.classes[key - 1].label));
    } else if (key === "x") send(exclude);
    else if (key === "z") undo();
    else if (key === "y") redo();
    else if (key === "n") turn(1);
    else if (key === "p") turn(-1);
    else if (key === "a" && !zoomed) { selected = new Set(page.images.map((image) => image.path)); mark(); }
    else if (key === "Escape" && !zoomed) clear();
    else if (key === " " && at >= 0 && !event.target.closest("button")) select(at, { ctrlKey: true });
    else if (key === "Enter" && at >= 0 && !zoomed && !event.target.closest("button")) zoom(at);
    else return;
    event.preventDefault();
  });
  window.addEventListener("hashchange", load);
  load();
})();
