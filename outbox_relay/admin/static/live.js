// Puts in what the relay sends. Without this script the pages work too: load them again.
"use strict";

(() => {
  const stream = new EventSource(document.body.dataset.live);
  const quiet = document.getElementById("quiet");

  const put = (name) => (event) => {
    const part = document.getElementById(name);
    // Whoever is in it, with the keyboard or selecting text, is not thrown out.
    const selected = document.getSelection();
    const busy =
      part.contains(document.activeElement) ||
      (selected && !selected.isCollapsed && part.contains(selected.anchorNode));
    if (!busy) {
      part.innerHTML = event.data;
    }
  };

  for (const name of ["status", "overview"]) {
    if (document.getElementById(name)) {
      stream.addEventListener(name, put(name));
    }
  }
  stream.addEventListener("open", () => {
    quiet.hidden = true;
  });
  stream.addEventListener("error", () => {
    quiet.hidden = false;
  });
  addEventListener("pagehide", () => stream.close());
})();
