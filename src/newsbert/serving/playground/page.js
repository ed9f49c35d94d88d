// Requests a prediction from every model first, which is quick, and then its explanation.

const form = document.querySelector("#classify");
const text = document.querySelector("#text");
const status = document.querySelector("#status");
const answers = document.querySelector("#answers");
const template = document.querySelector("#answer");
const MAX_UNSORTED_LABELS = 12; // up to so many labels are in the model's order; more are sorted by probability

let currentTurn = 0; // late answers to an older text are not shown
const cards = [];

function createElement(name, content, className = "") {
  const node = document.createElement(name);
  node.textContent = content;
  node.className = className;
  return node;
}

async function fetchJson(path, body) {
  let response;
  try {
    response = await fetch(path, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The playground has stopped. Start it again: newsbert playground");
  }
  const answer = await response.json().catch(() => ({ message: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error([answer.message, answer.hint].filter(Boolean).join(". "));
  return answer;
}

function makeCard(model, index) {
  const node = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => node.querySelector(selector);
  find("h2").textContent = model.name;
  const about = find(".about");
  const details = [model.runtime, model.review_threshold === null ? null : `review threshold ${model.review_threshold.toFixed(2)}`];
  about.append(details.filter(Boolean).join(" · "));
  if (model.run_id) {
    if (about.textContent) about.append(" · ");
    about.append("MLflow run ");
    const run = createElement(model.run_page ? "a" : "span", model.run_id.slice(0, 12));
    if (model.run_page) Object.assign(run, { href: model.run_page, target: "_blank", rel: "noopener noreferrer" });
    about.append(run);
  }
  answers.append(node);
  return { node, find, model, index };
}

function fail(card, error) {
  card.find(".error").textContent = error.message;
  card.find(".error").hidden = false;
  card.find(".result").hidden = true;
}

function showAnswer(card, answer) {
  card.find(".error").hidden = true;
  card.find(".result").hidden = false;
  card.find(".label").textContent = answer.label;
  card.find(".score").textContent = `${(answer.score * 100).toFixed(1)}% sure`;
  card.find(".review").hidden = !answer.review;
  card.find(".review").textContent = "needs review";
  const rows = Object.entries(answer.probabilities);
  if (rows.length > MAX_UNSORTED_LABELS) rows.sort((one, other) => other[1] - one[1]);
  card.find(".bars tbody").replaceChildren(...rows.map(([label, probability]) => {
    const row = document.createElement("tr");
    const head = createElement("th", "");
    head.scope = "row";
    const button = createElement("button", label);
    button.type = "button";
    button.addEventListener("click", () => showWords(card, currentTurn, card.text, label));
    head.append(button);
    const bar = createElement("div", "", "bar");
    bar.setAttribute("aria-hidden", "true");
    const fill = document.createElement("span");
    fill.style.setProperty("--probability", probability);
    bar.append(fill);
    const cell = document.createElement("td");
    cell.append(bar);
    row.append(head, cell, createElement("td", probability.toFixed(3)));
    return row;
  }));
}

async function showWords(card, turn, text, label) {
  const words = card.find(".words");
  for (const button of card.node.querySelectorAll(".bars button")) {
    button.setAttribute("aria-pressed", String(button.textContent === label));
  }
  card.find("h3").textContent = `Words for and against ${label}`;
  card.selectedLabel = label;
  words.setAttribute("aria-busy", "true");
  try {
    const answer = await fetchJson(`models/${card.index}/explanations`, { text, label });
    if (turn !== currentTurn || card.selectedLabel !== label) return;
    drawWords(card, answer.explanation);
  } catch (error) {
    if (turn === currentTurn) fail(card, error);
  } finally {
    words.removeAttribute("aria-busy");
  }
}

function drawWords(card, { words, text, method, label }) {
  const maxWeight = Math.max(...words.map((word) => Math.abs(word.attribution)), 1e-9);
  const parts = [];
  const characters = Array.from(text); // positions count code points, as Python's do
  let after = 0;
  for (const word of words) {
    parts.push(characters.slice(after, word.start).join(""));
    const span = createElement("span", word.text, word.attribution >= 0 ? "for" : "against");
    const weight = Math.abs(word.attribution) / maxWeight;
    if (weight < 0.1) span.className = "";
    span.style.setProperty("--weight", weight.toFixed(3));
    span.title = signed(word.attribution);
    parts.push(span);
    after = word.end;
  }
  const rest = characters.slice(after).join("");
  if (rest.trim()) parts.push(createElement("span", `${rest} (truncated: the model does not read this part)`, "truncated"));
  card.find(".words").replaceChildren(...parts);
  const sorted = [...words].sort((one, other) => Math.abs(other.attribution) - Math.abs(one.attribution));
  card.find(".numbers tbody").replaceChildren(...sorted.map((word) => {
    const row = document.createElement("tr");
    row.append(createElement("td", word.text), createElement("td", signed(word.attribution)));
    return row;
  }));
  card.find(".method").textContent = `Attribution of the words to the probability of ${label}. Method: ${method}.`;
  card.find("details").hidden = false;
}

function signed(number) {
  return (number < 0 ? "−" : "+") + Math.abs(number).toFixed(3);
}

async function classify() {
  const sent = text.value;
  const turn = ++currentTurn;
  status.textContent = "Classifying …";
  const predictions = await Promise.all(cards.map(async (card) => {
    card.text = sent;
    try {
      const answer = await fetchJson(`models/${card.index}/predictions`, { text: sent });
      if (turn !== currentTurn) return null;
      card.find(".words").replaceChildren();
      card.find("details").hidden = true;
      showAnswer(card, answer);
      return answer;
    } catch (error) {
      if (turn === currentTurn) fail(card, error);
      return null;
    }
  }));
  if (turn !== currentTurn) return;
  const summaries = predictions.map((answer, index) => answer &&
    `${cards.length > 1 ? `${cards[index].model.name}: ` : ""}${answer.label}, ${(answer.score * 100).toFixed(1)}% sure`);
  status.textContent = summaries.filter(Boolean).join(". ");
  await Promise.all(cards.map((card, index) => predictions[index] && showWords(card, turn, sent, predictions[index].label)));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  classify();
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

try {
  const { models, examples } = await fetchJson("models");
  models.forEach((model, index) => cards.push(makeCard(model, index)));
  document.title = `${models.map((model) => model.name).join(" and ")}: newsbert playground`;
  document.querySelector("#examples").append(...examples.map((example) => {
    const button = createElement("button", example);
    button.type = "button";
    button.addEventListener("click", () => {
      text.value = example;
      classify();
    });
    return button;
  }));
} catch (error) {
  status.textContent = error.message;
}
