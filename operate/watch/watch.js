// Asks for the run's state every two seconds and replaces the parts that changed; groups the reader opened stay open.
const connection = document.getElementById("connection");
let seen = "";

function replace(id, html) {
  const place = document.getElementById(id);
  const fresh = document.createElement("section");
  fresh.innerHTML = html;
  if (fresh.innerHTML === place.dataset.html) return;
  const open = new Set([...place.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  place.dataset.html = fresh.innerHTML;
  place.replaceChildren(...fresh.childNodes);
  place.querySelectorAll("details[data-key]").forEach((one) => {
    one.open = open.has(one.dataset.key);
  });
  connect(place);
}

async function poll() {
  try {
    const answer = await fetch("/state?seen=" + seen, { signal: AbortSignal.timeout(20000) });
    if (!answer.ok) throw new Error(await answer.text());
    if (answer.status === 200) {
      const state = await answer.json();
      for (const [id, html] of Object.entries(state.parts)) replace(id, html);
      seen = state.digest;
    }
    connection.textContent = "Live, renewed every two seconds.";
  } catch (error) {
    connection.textContent = "No answer from the watching program: " + error.message;
  }
  setTimeout(poll, 2000);
}
poll();
