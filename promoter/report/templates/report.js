"use strict";
// Draws the charts, and for each gene a logo and a map of mutations that can be zoomed and moved.
(() => {
  const BASES = "ACGT";
  const COLOURS = JSON.parse(document.documentElement.dataset.baseColours); // those of the figures in files
  const INK = "#222222", SOFT = "#59636f", LINE = "#c9ced4";
  const FONT = "system-ui, sans-serif";
  const LEFT = 44, RIGHT = 12; // pixels beside the letters
  const LOGO = 150, CELL = 15, ROW = 15, MOST_ROWS = 4;
  const LEAST = 12; // bases in view
  const LETTER = 5; // pixels, below which a base is a bar

  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    return columns[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  };

  for (const source of document.querySelectorAll("script[data-chart]")) {
    const place = document.getElementById(source.dataset.chart);
    const { spec, data, renderer } = JSON.parse(source.textContent);
    spec.datasets = Object.fromEntries(Object.entries(data).map(([name, columns]) => [name, rowsOf(columns)]));
    window.vegaEmbed(place, spec, {
      renderer,
      ast: true, // expressions are interpreted: the page may not make code from text
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: source.dataset.chart,
    }).catch((error) => {
      console.error(error);
      place.textContent = "This figure could not be drawn: " + error.message;
    });
  }

  const unpack = (packed) => {
    const text = atob(packed.values);
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = new Float32Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) values[i] = view.getInt16(2 * i, true) * packed.factor;
    return values;
  };

  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(2);
  const distanceText = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toLocaleString("en");

  // how far a capital reaches at 100 pixels, so that it can be stretched to fill its box
  const boxes = (() => {
    const context = document.createElement("canvas").getContext("2d");
    context.font = "bold 100px " + FONT;
    const found = {};
    for (const letter of BASES) {
      const size = context.measureText(letter);
      found[letter] = {
        left: size.actualBoundingBoxLeft,
        width: size.actualBoundingBoxLeft + size.actualBoundingBoxRight,
        height: size.actualBoundingBoxAscent + size.actualBoundingBoxDescent,
        below: size.actualBoundingBoxDescent,
      };
    }
    return found;
  })();

  const heat = (value) => {
    // white to red or blue, as in ColorBrewer's RdBu
    const to = value > 0 ? [178, 24, 43] : [33, 102, 172];
    const part = Math.min(Math.abs(value), 1);
    return "rgb(" + to.map((end) => Math.round(255 + (end - 255) * part)).join(",") + ")";
  };

  // the least 1, 2 or 5 times a power of ten that is at least `least`
  const niceStep = (least) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
    return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= least);
  };

  function fitted(canvas, height) {
    const width = Math.max(canvas.clientWidth, 200);
    const ratio = Math.max(window.devicePixelRatio || 1, 2); // fine enough for paper, too
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = height + "px";
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return { context, width };
  }

  class Viewer {
    constructor(element) {
      const data = JSON.parse(document.getElementById(element.dataset.gene).textContent);
      this.element = element;
      this.id = data.id;
      this.sequence = data.sequence;
      this.length = data.sequence.length;
      this.upstream = data.upstream;
      this.place = data.place;
      this.located = data.place !== null; // else positions count from the first base, from 0
      this.hits = this.inRows(data.hits);
      this.scores = unpack(data.scores); // base-major: all A, then C, G, T
      this.contribution = unpack(data.contribution);
      this.tallest = this.contribution.reduce((most, one) => Math.max(most, Math.abs(one)), 0) || 1;
      this.strongestChange = this.scores.reduce((most, one) => Math.max(most, Math.abs(one)), 0) || 1;
      this.fit = false;
      this.pointers = new Map();
      this.detail = element.querySelector(".detail");
      this.overview = element.querySelector(".overview");
      this.readout = element.querySelector(".readout");
      this.listen();
      this.strongest();
    }

    // hits that overlap are drawn one above the other
    inRows(hits) {
      const ends = [];
      return hits.map((hit) => {
        let row = ends.findIndex((end) => end <= hit.start);
        if (row < 0) row = Math.min(ends.length, MOST_ROWS - 1);
        ends[row] = hit.end;
        return { ...hit, row };
      });
    }

    get span() { return this.to - this.from; }
    get inner() { return Math.max(this.detail.clientWidth, 200) - LEFT - RIGHT; }
    x(position) { return LEFT + ((position - this.from) / this.span) * this.inner; }
    position(x) { return this.from + ((x - LEFT) / this.inner) * this.span; }

    show(from, span) {
      span = Math.min(Math.max(span, Math.min(LEAST, this.length)), this.length);
      this.from = Math.min(Math.max(from, 0), this.length - span);
      this.to = this.from + span;
      this.element.dataset.from = this.from.toFixed(2);
      this.element.dataset.to = this.to.toFixed(2);
      if (!this.waiting) {
        this.waiting = true;
        requestAnimationFrame(() => { this.waiting = false; this.draw(); });
      }
      clearTimeout(this.saying);
      this.saying = setTimeout(() => this.describe(), 400); // not at each step of a movement
    }

    zoom(factor, around = (this.from + this.to) / 2) {
      const span = Math.min(Math.max(this.span * factor, Math.min(LEAST, this.length)), this.length);
      this.show(around - ((around - this.from) / this.span) * span, span);
    }

    move(share) { this.show(this.from + share * this.span, this.span); }

    strongest() {
      const span = Math.min(this.length, Math.max(LEAST, Math.floor(this.inner / 9)));
      let sum = 0, best = -1, first = 0;
      for (let i = 0; i < this.length; i++) {
        sum += Math.abs(this.contribution[i]);
        if (i >= span) sum -= Math.abs(this.contribution[i - span]);
        if (i >= span - 1 && sum > best) { best = sum; first = i - span + 1; }
      }
      this.show(first, span);
    }

    act(what) {
      if (what === "in") this.zoom(0.6);
      else if (what === "out") this.zoom(1 / 0.6);
      else if (what === "left") this.move(-0.25);
      else if (what === "right") this.move(0.25);
      else if (what === "all") this.show(0, this.length);
      else if (what === "strongest") this.strongest();
      else if (what === "tss") this.show(this.upstream - this.span / 2, this.span);
      else if (what === "start") this.show(0, this.span);
      else if (what === "end") this.show(this.length, this.span);
    }

    listen() {
      for (const button of this.element.querySelectorAll("button")) {
        button.addEventListener("click", () => {
          if (button.dataset.do === "fit") {
            this.fit = !this.fit;
            button.setAttribute("aria-pressed", String(this.fit));
            this.show(this.from, this.span);
          } else this.act(button.dataset.do);
        });
      }
      const keys = {
        "+": "in", "=": "in", "-": "out", "_": "out", ArrowLeft: "left", ArrowRight: "right", Home: "start", End: "end",
        0: "all",
      };
      this.detail.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
        event.preventDefault();
        this.act(keys[event.key]);
      });
      this.detail.addEventListener("wheel", (event) => {
        const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
        // the wheel scrolls the page, until a click says that this figure is meant
        if (!sideways && !event.ctrlKey && !event.metaKey && document.activeElement !== this.detail) return;
        event.preventDefault();
        if (sideways) this.show(this.from + (event.deltaX / this.inner) * this.span, this.span);
        else this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.005), this.position(event.offsetX));
      }, { passive: false });
      this.detail.addEventListener("pointerdown", (event) => {
        this.detail.setPointerCapture(event.pointerId);
        this.pointers.set(event.pointerId, event.offsetX);
      });
      this.detail.addEventListener("pointermove", (event) => {
        const before = this.pointers.get(event.pointerId);
        if (before === undefined) { this.point(event.offsetX); return; }
        const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
        this.pointers.set(event.pointerId, event.offsetX);
        if (others.length === 1) {
          const other = others[0][1];
          const was = Math.max(Math.abs(before - other), 10), is = Math.max(Math.abs(event.offsetX - other), 10);
          this.zoom(was / is, this.position((event.offsetX + other) / 2));
        } else if (!others.length) this.show(this.from - ((event.offsetX - before) / this.inner) * this.span, this.span);
      });
      for (const end of ["pointerup", "pointercancel"]) {
        this.detail.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
      }
      this.detail.addEventListener("pointerleave", () => this.describe());
      const jump = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const width = Math.max(this.overview.clientWidth, 200) - LEFT - RIGHT;
        this.show(((event.offsetX - LEFT) / width) * this.length - this.span / 2, this.span);
      };
      this.overview.addEventListener("pointerdown", (event) => {
        this.overview.setPointerCapture(event.pointerId);
        jump(event);
      });
      this.overview.addEventListener("pointermove", jump);
      let width = 0;
      new ResizeObserver(() => {
        if (this.detail.clientWidth !== width) { width = this.detail.clientWidth; this.draw(); }
      }).observe(this.detail);
    }

    distance(position) { return position - this.upstream; }
    genomic(position) {
      return this.place.strand === "+" ? this.place.start + position : this.place.end - 1 - position;
    }
    positionText(position) {
      const distance = this.distance(position);
      return this.located ? distanceText(distance) : distance.toLocaleString("en");
    }
    where(position) {
      const there = this.place ? " (" + this.place.chrom + ":" + this.genomic(position).toLocaleString("en") + ")" : "";
      return this.positionText(position) + there;
    }

    point(x) {
      const position = Math.floor(this.position(x));
      if (position < 0 || position >= this.length || x < LEFT) return;
      const there = this.sequence[position];
      const changes = [...BASES].filter((base) => base !== there)
        .map((base) => base + " " + signed(this.scores[BASES.indexOf(base) * this.length + position]));
      const hits = this.hits.filter((hit) => hit.start <= position && position < hit.end).map((hit) => hit.motif);
      this.readout.textContent = there + " at " + this.where(position) + " contributes " +
        signed(this.contribution[position]) + "; changed to " + changes.join(", ") +
        (hits.length ? "; in " + hits.join(", ") : "");
    }

    describe() {
      const first = Math.floor(this.from), last = Math.min(Math.ceil(this.to), this.length) - 1;
      let strongest = first;
      for (let i = first; i <= last; i++) {
        if (Math.abs(this.contribution[i]) > Math.abs(this.contribution[strongest])) strongest = i;
      }
      const hits = this.hits.filter((hit) => hit.start <= last && first < hit.end).map((hit) => hit.motif);
      this.readout.textContent = (last - first + 1).toLocaleString("en") + " bases from " + this.where(first) + " to " +
        this.where(last) + "; the strongest is " + this.sequence[strongest] + " at " +
        this.positionText(strongest) + ", " + signed(this.contribution[strongest]) +
        (hits.length ? "; motifs: " + [...new Set(hits)].slice(0, 6).join(", ") : "");
      this.detail.setAttribute("aria-label", "Contributions along the " + (this.located ? "promoter of " : "sequence ") +
        this.id + ": " +
        this.readout.textContent);
    }

    draw() {
      if (this.from === undefined) return;
      this.drawOverview();
      const rows = this.hits.length ? Math.max(...this.hits.map((hit) => hit.row)) + 1 : 0;
      const top = this.place ? 22 : 6;
      const hitsHeight = rows ? rows * ROW + 6 : 0;
      const logoTop = top + hitsHeight;
      const mapTop = logoTop + LOGO + 10;
      const axisTop = mapTop + 4 * CELL + 4;
      const { context, width } = fitted(this.detail, axisTop + 36);
      this.context = context;
      const clip = (draw) => {
        context.save();
        context.beginPath();
        context.rect(LEFT, 0, this.inner, axisTop);
        context.clip();
        draw();
        context.restore();
      };
      clip(() => this.drawHits(top));
      this.drawScale(logoTop);
      clip(() => this.drawLetters(logoTop));
      clip(() => this.drawMap(mapTop));
      this.drawTss(logoTop, axisTop);
      context.fillStyle = SOFT;
      context.font = "12px " + FONT;
      context.textAlign = "right";
      context.textBaseline = "middle";
      [...BASES].forEach((base, row) => context.fillText(base, LEFT - 8, mapTop + (row + 0.5) * CELL));
      this.drawAxes(top, axisTop, width);
    }

    // Where the line of no contribution lies, and pixels for one unit of the target: all letters fit, above and below
    scale(top) {
      let up = 0, down = 0;
      const [first, last] = this.fit ? [Math.floor(this.from), Math.min(Math.ceil(this.to), this.length)] : [0, this.length];
      for (let i = first; i < last; i++) {
        up = Math.max(up, this.contribution[i]);
        down = Math.max(down, -this.contribution[i]);
      }
      const most = up + down || 1;
      const share = Math.min(Math.max(up / most, 0.15), 0.85);
      const unit = Math.min(up ? (LOGO * share) / up : Infinity, down ? (LOGO * (1 - share)) / down : Infinity);
      return { zero: top + LOGO * share, unit: Number.isFinite(unit) ? unit : 1, most };
    }

    drawScale(top) {
      const { context } = this;
      const { zero, unit, most } = this.scale(top);
      context.font = "11px " + FONT;
      context.textAlign = "right";
      context.textBaseline = "middle";
      const power = 10 ** Math.floor(Math.log10(most / 4));
      const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= most / 4);
      for (let k = -8; k <= 8; k++) {
        const y = zero - k * step * unit;
        if (y < top - 1 || y > top + LOGO + 1) continue;
        context.strokeStyle = k ? "#e9ecef" : SOFT;
        context.lineWidth = k ? 1 : 0.75;
        context.beginPath();
        context.moveTo(LEFT, y);
        context.lineTo(LEFT + this.inner, y);
        context.stroke();
        context.fillStyle = SOFT;
        context.fillText((k < 0 ? "−" : "") + Number(Math.abs(k * step).toPrecision(2)), LEFT - 6, y);
      }
    }

    drawLetters(top) {
      const { context } = this;
      const { zero, unit } = this.scale(top);
      const size = this.inner / this.span;
      const first = Math.floor(this.from), last = Math.min(Math.ceil(this.to), this.length);
      for (let i = first; i < last; i++) {
        const letter = this.sequence[i], value = this.contribution[i];
        const tall = Math.abs(value) * unit;
        if (tall < 0.3) continue;
        context.fillStyle = COLOURS[letter] || COLOURS.N;
        if (size < LETTER || !(letter in boxes)) {
          context.fillRect(this.x(i), value > 0 ? zero - tall : zero, Math.max(size, 0.8), tall);
          continue;
        }
        const box = boxes[letter];
        const wide = (size * 0.94) / box.width, high = tall / box.height;
        context.save();
        context.translate(this.x(i) + size * 0.03, zero);
        if (value < 0) context.scale(1, -1); // below the line they stand on their heads, as usual
        context.scale(wide, high);
        context.font = "bold 100px " + FONT;
        context.textAlign = "left";
        context.textBaseline = "alphabetic";
        context.fillText(letter, box.left, -box.below);
        context.restore();
      }
    }

    drawMap(top) {
      const { context } = this;
      const size = this.inner / this.span;
      const perColumn = Math.max(1, Math.ceil(0.75 / size)); // bases that share a column of pixels
      const first = Math.floor(this.from / perColumn) * perColumn, last = Math.min(Math.ceil(this.to), this.length);
      for (let row = 0; row < 4; row++) {
        for (let i = first; i < last; i += perColumn) {
          let value = 0;
          for (let j = i; j < Math.min(i + perColumn, this.length); j++) {
            const one = this.scores[row * this.length + j];
            if (Math.abs(one) > Math.abs(value)) value = one;
          }
          // the square root shows weak changes, too
          const shade = Math.sign(value) * Math.sqrt(Math.abs(value) / this.strongestChange);
          if (Math.abs(shade) < 0.02) continue;
          context.fillStyle = heat(shade);
          context.fillRect(this.x(i), top + row * CELL, size * perColumn + 0.4, CELL);
        }
      }
      context.strokeStyle = LINE;
      context.lineWidth = 1;
      context.strokeRect(LEFT, top, this.inner, 4 * CELL);
      if (size < LETTER) return;
      context.fillStyle = INK;
      for (let i = first; i < last; i++) {
        const row = BASES.indexOf(this.sequence[i]);
        if (row < 0) continue;
        context.beginPath();
        context.arc(this.x(i + 0.5), top + (row + 0.5) * CELL, Math.min(2.2, size / 4), 0, 2 * Math.PI);
        context.fill();
      }
    }

    drawHits(top) {
      const { context } = this;
      context.font = "11px " + FONT;
      context.textBaseline = "middle";
      context.textAlign = "left";
      for (const hit of this.hits) {
        const left = this.x(hit.start), wide = Math.max(this.x(hit.end) - left, 2);
        if (left + wide < LEFT || left > LEFT + this.inner) continue;
        const y = top + hit.row * ROW;
        context.fillStyle = "#e8eef4";
        context.strokeStyle = "#6b8299";
        context.fillRect(left, y, wide, ROW - 3);
        context.strokeRect(left, y, wide, ROW - 3);
        const text = (hit.strand === "same" ? "" : "◂ ") + hit.motif + (hit.strand === "same" ? " ▸" : "");
        if (context.measureText(text).width < wide - 4) {
          context.fillStyle = INK;
          context.fillText(text, Math.max(left, LEFT) + 3, y + (ROW - 3) / 2);
        }
      }
    }

    drawTss(top, bottom) {
      if (!this.located) return;
      const x = this.x(this.upstream);
      if (x < LEFT - 1 || x > LEFT + this.inner + 1) return;
      const { context } = this;
      context.strokeStyle = SOFT;
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, bottom);
      context.stroke();
      context.setLineDash([]);
    }

    drawAxes(top, bottom, width) {
      const { context } = this;
      context.font = "11px " + FONT;
      context.fillStyle = SOFT;
      context.strokeStyle = SOFT;
      context.textAlign = "center";
      const first = Math.floor(this.from), last = Math.min(Math.ceil(this.to), this.length) - 1;
      const edge = (x, text) => {
        const half = context.measureText(text).width / 2;
        return Math.min(Math.max(x, half + 1), width - half - 1);
      };
      const axis = (least, value, label, y, up) => {
        const step = niceStep((least * this.span) / this.inner);
        for (let i = first; i <= last; i++) {
          const here = value(i);
          if (here % step) continue;
          const x = this.x(i + 0.5);
          if (x < LEFT || x > LEFT + this.inner) continue;
          context.beginPath();
          context.moveTo(x, y);
          context.lineTo(x, y + (up ? -4 : 4));
          context.stroke();
          const text = label(here);
          context.fillText(text, edge(x, text), y + (up ? -11 : 12));
        }
      };
      context.textBaseline = "middle";
      const text = this.located ? (d) => (d === 0 ? "TSS" : distanceText(d)) : (d) => d.toLocaleString("en");
      axis(70, (i) => this.distance(i), text, bottom, false);
      const label = this.located ? "distance to the TSS (bases)" : "position in the sequence (from 0)";
      context.fillText(label, LEFT + this.inner / 2, bottom + 28);
      if (this.place) {
        axis(95, (i) => this.genomic(i), (at) => (at < 0 ? "" : at.toLocaleString("en")), top - 2, true);
      }
    }

    drawOverview() {
      const { context, width } = fitted(this.overview, 40);
      const inner = width - LEFT - RIGHT;
      const size = inner / this.length;
      context.fillStyle = "#e8eef4";
      context.fillRect(LEFT + this.from * size, 0, Math.max(this.span * size, 3), 40);
      context.strokeStyle = "#6b8299";
      context.strokeRect(LEFT + this.from * size, 0.5, Math.max(this.span * size, 3), 39);
      for (let i = 0; i < this.length; i++) {
        const tall = (this.contribution[i] / this.tallest) * 19;
        context.fillStyle = COLOURS[this.sequence[i]] || COLOURS.N;
        context.fillRect(LEFT + i * size, tall > 0 ? 20 - tall : 20, Math.max(size, 0.8), Math.abs(tall));
      }
    }
  }

  const viewers = [...document.querySelectorAll(".viewer")].map((element) => new Viewer(element));
  window.addEventListener("beforeprint", () => viewers.forEach((one) => one.draw()));
})();
