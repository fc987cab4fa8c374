"use strict";
(() => {
  const events = [...document.querySelectorAll("article")];
  const letters = document.getElementById("letters");
  if (events.length === 0) return;
  let current = -1;

  function mark(event) {
    for (const line of document.querySelectorAll(".timeline")) {
      const here = line.querySelector(".here");
      const on = line.dataset.timeline === event.dataset.timeline;
      here.style.visibility = on ? "visible" : "hidden";
      if (on) here.setAttribute("x", `${100 * Math.min(event.dataset.start / line.dataset.seconds, 1)}%`);
    }
  }

  function choose(number) {  // the only one that Tab stops at; the others are reached from it
    events[Math.max(current, 0)].tabIndex = -1;
    current = number;
    events[current].tabIndex = 0;
    mark(events[current]);
  }

  function go(number) {
    choose(Math.min(Math.max(number, 0), events.length - 1));
    events[current].focus({ preventScroll: true });
    events[current].scrollIntoView({ block: "nearest" });
  }

  function play(event) {
    const clip = event.querySelector("video");
    if (clip === null) return;
    if (!clip.paused) { clip.pause(); return; }
    for (const other of document.querySelectorAll("video")) other.pause();
    clip.play().catch(() => {});  // the browser shows what is wrong with it
  }

  for (const clip of document.querySelectorAll("video")) {  // copied packets may begin long before the event
    clip.addEventListener("loadedmetadata", () => { clip.currentTime = clip.dataset.from; }, { once: true });
  }

  events.forEach((event, number) => {
    event.tabIndex = number === 0 ? 0 : -1;
    event.addEventListener("focusin", () => choose(number));
  });

  document.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.altKey || key.metaKey || key.defaultPrevented) return;
    const on = document.activeElement;
    const event = on.tagName === "ARTICLE";  // an event itself, and not a link or a clip in it
    if (["INPUT", "SELECT", "TEXTAREA"].includes(on.tagName) && on !== letters) return;
    const step = {
      j: letters.checked && 1, k: letters.checked && -1, ArrowDown: event && 1, ArrowUp: event && -1,
    }[key.key];
    if (step) go(current < 0 ? 0 : current + step);
    else if (event && key.key === "Home") go(0);
    else if (event && key.key === "End") go(events.length - 1);
    else if (event && key.key === "Enter") play(on);
    else return;
    key.preventDefault();
  });

  for (const line of document.querySelectorAll(".timeline")) {
    line.addEventListener("click", (click) => {
      const box = line.getBoundingClientRect();
      const time = (click.clientX - box.left) / box.width * line.dataset.seconds;
      let best = -1, far = Infinity;
      events.forEach((event, number) => {
        if (event.dataset.timeline !== line.dataset.timeline) return;
        const away = Math.max(event.dataset.start - time, time - event.dataset.end, 0);
        if (away < far) { best = number; far = away; }
      });
      if (best >= 0) go(best);
    });
  }

  function wholly() {  // pictures that were never near the screen are asked for only now
    const pictures = [...document.images];
    for (const picture of pictures) picture.loading = "eager";
    return Promise.allSettled(pictures.filter((each) => each.offsetParent !== null).map((each) => each.decode()));
  }

  window.addEventListener("beforeprint", wholly);
  document.getElementById("print").addEventListener("click", () => wholly().then(() => window.print()));

  const named = events.findIndex((event) => `#${event.id}` === location.hash);
  if (named >= 0) go(named);
})();
