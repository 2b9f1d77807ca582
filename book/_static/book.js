// Small helps that style sheets cannot give: keyboard access to what scrolls, and folded text in print.
(function () {
  "use strict";

  const SCROLLING = "mjx-container[display], div.math, .pst-scrollable-table-container, .cell_output .output, pre";

  // whether something lies beyond the right or the left edge; the style sheet fades the edge then
  function mark(box) {
    const scrolls = !["visible", "clip"].includes(getComputedStyle(box).overflowX);
    box.classList.toggle("reaches-on", scrolls && box.scrollWidth - box.clientWidth - box.scrollLeft > 1);
    box.classList.toggle("reaches-back", scrolls && box.scrollLeft > 1);
  }

  function reachable() {
    document.querySelectorAll(SCROLLING).forEach(function (box) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.setAttribute("tabindex", "0");
        box.onscroll = function () { mark(box); };
      }
      mark(box);
    });
  }

  window.addEventListener("DOMContentLoaded", function () {
    // the theme leaves the switches of its table of contents without a name
    document.querySelectorAll("details > summary > .toctree-toggle").forEach(function (mark) {
      mark.parentElement.setAttribute("aria-label", "Pages below");
    });
  });

  window.addEventListener("load", function () {
    const ready = window.MathJax && MathJax.startup && MathJax.startup.promise;
    (ready || Promise.resolve()).then(reachable);
    window.addEventListener("resize", reachable);
    document.addEventListener("toggle", reachable, true); // what was folded had no width
  });

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open])").forEach(function (box) {
      box.setAttribute("open", "");
      box.setAttribute("data-opened-for-print", "");
    });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details[data-opened-for-print]").forEach(function (box) {
      box.removeAttribute("open");
      box.removeAttribute("data-opened-for-print");
    });
  });
})();
