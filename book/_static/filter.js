// Filters of the pages of claims and of results. Without scripts the forms stay hidden and everything is shown.
(function () {
  "use strict";

  // an entry answers to a menu by the attribute of the same name, on itself or on its head
  function value(item, name) {
    const carrier = item.querySelector("[data-" + name + "]");
    return carrier ? carrier.getAttribute("data-" + name) : "";
  }

  function start(form) {
    const items = [...document.querySelectorAll(form.dataset.items)];
    const menus = [...form.querySelectorAll("select")], words = form.elements.words;
    const output = form.querySelector("output"), address = new URLSearchParams(location.search);
    const texts = items.map(item => item.textContent.toLowerCase());

    function apply() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = menus.filter(menu => menu.value), active = wanted.length + chosen.length > 0;
      let shown = 0;
      items.forEach(function (item, k) {
        const fits = chosen.every(menu => value(item, menu.name) === menu.value) && wanted.every(w => texts[k].includes(w));
        item.hidden = !fits;
        shown += fits;
      });
      document.querySelectorAll("details.book-group").forEach(function (group) {
        const some = group.querySelector(".book-entry:not([hidden])") !== null;
        group.closest("section").hidden = !some;
        if (active && !("before" in group.dataset)) group.dataset.before = group.open ? "open" : "";
        if (active) group.open = some;
        if (!active && "before" in group.dataset) {
          group.open = group.dataset.before === "open";
          delete group.dataset.before;
        }
      });
      output.textContent = (active ? shown + " of " : "") + items.length + " " + output.dataset.what;
      const state = new URLSearchParams(location.search);
      menus.concat(words).forEach(function (control) {
        if (control.value) state.set(control.name, control.value);
        else state.delete(control.name);
      });
      const query = state.toString();
      history.replaceState(null, "", location.pathname + (query ? "?" + query : "") + location.hash);
    }

    menus.concat(words).forEach(function (control) {
      if (address.has(control.name)) control.value = address.get(control.name);
    });
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", event => event.preventDefault());
    apply();
  }

  // a link to an entry opens what it is folded into
  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) {
      document.querySelectorAll("form.book-filter").forEach(function (form) {
        form.reset();
        form.dispatchEvent(new Event("input"));
      });
    }
    for (let box = target.parentElement; box; box = box.parentElement) {
      if (box.tagName === "DETAILS") box.open = true;
    }
    const own = target.classList.contains("book-entry") && target.querySelector("details");
    if (own) own.open = true;
    target.scrollIntoView();
  }

  window.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("form.book-filter").forEach(start);
    reveal();
  });
  window.addEventListener("hashchange", reveal);
})();
