"use strict";
{
  const root = document.documentElement;

  // Style properties set from script are allowed by the page's policy; style attributes are not.
  const slide = (slider) => {
    slider.closest(".picture").style.setProperty("--cut", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value}% original, ${100 - slider.value}% cutout`);
  };

  const all = document.getElementById("slide-all");
  const sliders = document.querySelectorAll(".slider");
  const colour = document.getElementById("colour");
  const filter = document.getElementById("filter");

  const slideAll = () => {
    for (const slider of sliders) {
      slider.value = all.value;
      slide(slider);
    }
  };

  const paint = () => root.style.setProperty("--colour", colour.value);

  const narrow = () => {
    const wanted = filter.value.trim().toLowerCase();
    const rows = document.querySelectorAll(".failures tbody tr");
    let shown = 0;
    for (const row of rows) {
      const text = `${row.textContent} ${row.querySelector(".code").title}`;
      row.hidden = !text.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    const status = document.getElementById("filter-count");
    status.hidden = wanted === "";
    status.textContent = wanted === "" ? "" : `${shown} of ${rows.length} rows match.`;
  };

  document.addEventListener("input", ({ target }) => {
    if (target === all) {
      slideAll();
    } else if (target === colour) {
      paint();
      document.querySelector('input[name="backdrop"][value="colour"]').checked = true;
    } else if (target === filter) {
      narrow();
    } else if (target.classList.contains("slider")) {
      slide(target);
    }
  });

  // A browser may bring back what was set before a reload.
  sliders.forEach(slide);
  if (colour) {
    paint();
  }
  if (filter) {
    filter.closest("label").hidden = false;
    narrow();
  }
}
