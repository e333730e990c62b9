// SPDX-License-Identifier: Apache-2.0
// Shows the masks that a frame's sliders and its list of objects ask for. All text is in the page already.
"use strict";

for (const drawing of document.querySelectorAll(".frame svg")) {
  const frame = drawing.closest(".frame");
  const [layer, sample] = frame.querySelectorAll("input");
  const shade = drawing.querySelector(".shade");
  const masks = [...drawing.querySelectorAll(".mask")];
  const rows = [...frame.querySelectorAll("tr[data-object]")];
  const badges = [...frame.querySelectorAll(".badge")];
  let pinned = null; // the object whose button is pressed

  function name(slider) {
    const text = slider.list.options[slider.value].label;
    slider.setAttribute("aria-valuetext", text);
    slider.previousElementSibling.textContent = text;
  }

  // One object, or what the sliders say.
  function show(object) {
    const all = layer.value === "0";
    const several = all && layer.max !== "1";
    if (several) sample.value = 0; // the samples of different layers do not belong together
    sample.disabled = several || sample.max === "0";
    name(layer);
    name(sample);

    const wanted = object
      ? `[data-object="${object}"]`
      : `${all ? "" : `[data-layer="${layer.value}"]`}[data-sample="${sample.value}"]`;
    for (const mask of masks) mask.classList.toggle("shown", mask.matches(wanted));
    for (const badge of badges) {
      const listed = sample.value === "0" && (all || badge.dataset.layer === layer.value);
      badge.hidden = object ? badge.dataset.object !== object : !listed;
    }

    const single = object || !all || sample.value !== "0" ? masks.find((mask) => mask.matches(wanted)) : null;
    shade.setAttribute("d", single ? shade.dataset.frame + outline(single) : "");
    frame.querySelector("figcaption").textContent = (single || drawing).dataset.caption;
    for (const row of rows) {
      row.querySelector("button").setAttribute("aria-pressed", row.dataset.object === pinned);
    }
  }

  function outline(mask) {
    return document.querySelector(mask.querySelector("use").getAttribute("href")).getAttribute("d");
  }

  function pin(object) {
    pinned = pinned === object ? null : object;
    show(pinned);
  }

  for (const slider of [layer, sample]) {
    slider.addEventListener("input", () => {
      pinned = null;
      show(null);
    });
  }
  for (const row of rows) {
    row.addEventListener("mouseenter", () => show(row.dataset.object));
    row.addEventListener("mouseleave", () => show(pinned));
    row.querySelector("button").addEventListener("click", () => pin(row.dataset.object));
  }
  for (const badge of badges) badge.addEventListener("click", () => pin(badge.dataset.object));
  show(null);
}
