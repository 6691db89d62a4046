"""The failure browser's script: filters the embedded failures and draws them a page at a time."""

JS = """
const failures = JSON.parse(document.getElementById('failures').textContent);
const pick = id => document.getElementById(id);
const list = pick('list'), more = pick('more'), count = pick('count');
let shown = 0, matching = [];
const el = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls; return e; };
function result(r) {
  const box = el('div', undefined, 'result');
  if (r.error !== undefined) { box.append(el('p', r.error, 'error')); return box; }
  if (!r.rows.length) { box.append(el('p', 'no rows', 'soft')); return box; }
  const t = el('table'), head = el('tr');
  r.columns.forEach(c => head.append(el('th', c))); t.append(head);
  r.rows.forEach(row => { const tr = el('tr');
    row.forEach(v => tr.append(v === null ? el('td', 'NULL', 'null') : el('td', v))); t.append(tr); });
  box.append(t);
  const hidden = r.total_rows - r.rows.length, wide = r.total_columns - r.columns.length;
  const rest = [hidden > 0 ? hidden + ' more rows' : '', wide > 0 ? wide + ' more columns' : ''].filter(Boolean);
  if (rest.length) box.append(el('p', rest.join(', '), 'soft'));
  return box;
}
function side(title, sql, r) {
  const box = el('div'); box.append(el('h4', title), el('pre', sql || '(no SQL)'), result(r)); return box;
}
function card(f) {
  const a = el('article'), tags = el('div', undefined, 'tags');
  a.append(el('h3', f.question));
  tags.append(el('span', '#' + f.key, 'tag'), el('span', f.db_id, 'tag'), el('span', f.level, 'tag'));
  f.marks.forEach(([text, kind]) => tags.append(el('span', text, 'tag ' + kind)));
  a.append(tags);
  if (f.evidence) a.append(el('p', 'Evidence: ' + f.evidence, 'soft'));
  const sides = el('div', undefined, 'sides');
  const where = f.instance ? ' (instance ' + f.instance + ')' : '';
  sides.append(side('Gold' + where, f.gold, f.gold_result), side('Chosen' + where, f.sql, f.result));
  a.append(sides); return a;
}
function draw() {
  matching.slice(shown, shown + 20).forEach(f => list.append(card(f)));
  shown = Math.min(shown + 20, matching.length);
  more.hidden = shown >= matching.length; more.textContent = 'Show more (' + (matching.length - shown) + ' left)'; }
function apply() {
  const [db, level, kind] = ['db', 'level', 'kind'].map(id => pick(id).value);
  const words = pick('words').value.toLowerCase();
  matching = failures.filter(f => (!db || f.db_id === db) && (!level || f.level === level) &&
    (!kind || (kind === 'error') === ('error' in f.result)) &&
    (!words || (f.question + ' ' + f.sql + ' ' + f.gold).toLowerCase().includes(words)));
  list.replaceChildren(); shown = 0;
  count.textContent = matching.length + ' of ' + failures.length + ' wrong answers';
  draw();
}
['db', 'level', 'kind'].forEach(id => pick(id).addEventListener('change', apply));
pick('words').addEventListener('input', apply); more.addEventListener('click', draw); apply();
document.documentElement.dataset.ready = 'yes';
"""
