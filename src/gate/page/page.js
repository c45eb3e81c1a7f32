'use strict';
// Filters and transcripts of a report. The fragment is the state: #gate=factual&show=failed&found=md.bold&text=delhi,
// and &open=ID (or open=first) opens a play. What a model wrote becomes text nodes only.
(() => {
  const PAGE = 100;
  const byId = (id) => document.getElementById(id);
  const data = (block) => JSON.parse(block.textContent);
  const names = data(byId('sides'));
  const pair = names.length === 2;

  // Rows are read at once, plays a block at a time when somebody looks at them.
  const rows = [];
  document.querySelectorAll('script.rows').forEach((block, chunk) => {
    data(block).forEach((row, at) => rows.push(Object.assign(row, {chunk, at})));
  });
  const blocks = document.querySelectorAll('script.plays');
  const recent = new Map();
  const play = (row) => {
    if (!recent.has(row.chunk)) {
      if (recent.size >= 4) recent.delete(recent.keys().next().value);
      recent.set(row.chunk, data(blocks[row.chunk]));
    }
    return recent.get(row.chunk)[row.at];
  };

  const make = (tag, look, text) => {
    const node = document.createElement(tag);
    if (look) node.className = look;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // --- filters

  const passes = (side, gate) => gate ? !side.fails.includes(gate) : side.verdict === 'clean' || side.verdict === 'passed';
  const shows = pair ? {
    '': ['all that differ', () => true],
    verdict: ['verdict differs', (row, gate) => passes(row.sides[0], gate) !== passes(row.sides[1], gate)],
    only_a: ['only A passes', (row, gate) => passes(row.sides[0], gate) && !passes(row.sides[1], gate)],
    only_b: ['only B passes', (row, gate) => !passes(row.sides[0], gate) && passes(row.sides[1], gate)],
    text: ['only the text differs', (row, gate) => passes(row.sides[0], gate) === passes(row.sides[1], gate)],
  } : {
    '': ['all', () => true],
    failed: ['failed', (row, gate) => !passes(row.sides[0], gate)],
    passed: ['passed', (row, gate) => passes(row.sides[0], gate)],
    findings: ['passed with findings', (row) => row.sides[0].verdict === 'passed'],
    error: ['no answer from the server', (row) => row.sides[0].verdict === 'error'],
  };

  // Everything that was said in a play, for the search. Kept, since the next letter searches again.
  const words = (row) => {
    if (row.words === undefined) {
      const all = [row.id];
      for (const side of play(row)) {
        for (const turn of side.turns) {
          all.push(turn.user, turn.reply, turn.reasoning, ...turn.failures);
          for (const call of turn.calls) all.push(call.name, call.arguments, call.result);
        }
      }
      row.words = all.join('\n').toLowerCase();
    }
    return row.words;
  };

  const state = () => new URLSearchParams(location.hash.slice(1));
  const matching = () => {
    const at = state();
    const [gate, category, found, show, text] = ['gate', 'category', 'found', 'show', 'text'].map((k) => at.get(k) || '');
    const keep = (shows[show] || shows[''])[1];
    const wanted = text.toLowerCase();
    return rows.filter((row) => (!gate || row.gates.includes(gate)) && (!category || row.category === category) &&
        (!found || row.found.some((id) => id === found || id.startsWith(found + '.'))) && keep(row, gate) &&
        (!wanted || words(row).includes(wanted)));
  };

  const fill = (name, values) => {
    const select = document.querySelector(`[name=${name}]`);
    for (const [value, label] of values) {
      const option = make('option', '', label);
      option.value = value;
      select.append(option);
    }
  };
  const distinct = (list) => {
    const values = new Set();
    rows.forEach((row) => list(row).forEach((value) => values.add(value)));
    return [['', 'any'], ...[...values].sort().map((value) => [value, value])];
  };

  // --- transcripts

  // The words that two texts do not share at their ends.
  const marked = (text, other) => {
    const here = text.split(/(\s+)/), there = other.split(/(\s+)/);
    let start = 0, end = 0;
    while (start < here.length && start < there.length && here[start] === there[start]) ++start;
    const rest = Math.min(here.length, there.length) - start;
    while (end < rest && here[here.length - 1 - end] === there[there.length - 1 - end]) ++end;
    const node = make('p', 'text');
    node.append(here.slice(0, start).join(''), make('mark', '', here.slice(start, here.length - end).join('')),
                here.slice(here.length - end).join(''));
    return node;
  };

  const said = (turn, other) => {
    const node = make('div', turn && turn.pass ? 'side' : 'side failed');
    if (!turn) return node.append(make('p', 'note faint', 'not played')), node;
    if (turn.reasoning) node.append(make('p', 'text reasoning', turn.reasoning));
    for (const call of turn.calls) {
      node.append(make('p', 'text call', `${call.name} ${call.arguments}`));
      if (call.result) node.append(make('p', 'text call faint', `→ ${call.result}`));
    }
    const differs = other && other.reply !== turn.reply;
    if (turn.reply) node.append(differs ? marked(turn.reply, other.reply) : make('p', 'text', turn.reply));
    for (const failure of turn.failures) node.append(make('p', 'text note bad', failure));
    for (const found of turn.anomalies) {
      node.append(make('p', 'text note warn', `${found.id}${found.warning ? ' (warning)' : ''}: ${found.snippet}`));
    }
    if (turn.ttfat_ms >= 0) node.append(make('p', 'note faint', `first token ${turn.ttfat_ms} ms, ${turn.ms} ms in all`));
    return node;
  };

  const transcript = (row) => {
    const sides = play(row);
    const talk = make('div', pair ? 'talk pair' : 'talk');
    sides.forEach((side, i) => {
      if (side.error) talk.append(make('p', 'text bad', pair ? `${'AB'[i]}: ${side.error}` : side.error));
    });
    if (pair) {
      const head = make('div', 'turn faint');
      names.forEach((name, i) => head.append(make('div', '', `${'AB'[i]}: ${name}`)));
      talk.append(head);
    }
    const turns = Math.max(...sides.map((side) => side.turns.length));
    for (let i = 0; i < turns; ++i) {
      const node = make('div', 'turn');
      const at = sides.map((side) => side.turns[i]);
      node.append(make('div', 'text user', (at[0] || at[1]).user));
      at.forEach((turn, side) => node.append(said(turn, at[1 - side])));
      talk.append(node);
    }
    return talk;
  };

  const looks = {clean: 'good', passed: 'good', failed: 'bad', error: 'bad'};
  const entry = (row) => {
    const node = make('details', 'play'), line = make('summary');
    row.sides.forEach((side, i) => {
      const verdict = side.verdict === 'clean' ? 'passed' : side.verdict;
      line.append(make('span', `badge ${looks[side.verdict]}`, pair ? `${'AB'[i]} ${verdict}` : verdict));
    });
    line.append(make('span', 'id', row.repeat > 1 ? `${row.id} (repeat ${row.repeat})` : row.id));
    const chips = new Set([row.category, ...row.gates, ...row.found]);
    for (const chip of chips) if (chip) line.append(make('span', 'chip', chip));
    node.append(line);
    node.addEventListener('toggle', () => { if (node.open && !line.nextSibling) node.append(transcript(row)); });
    return node;
  };

  let left = [];
  const more = () => {
    byId('list').append(...left.splice(0, PAGE).map(entry));
    byId('more').hidden = left.length === 0;
  };

  const apply = () => {
    const at = state();
    document.querySelectorAll('.filters [name]').forEach((field) => {
      if (field !== document.activeElement || field.tagName === 'SELECT') field.value = at.get(field.name) || '';
    });
    left = matching();
    byId('count').textContent = `${left.length} of ${rows.length}`;
    byId('list').replaceChildren();
    const wanted = at.get('open');
    const first = wanted === 'first' ? left[0] : left.find((row) => row.id === wanted);
    if (first) left = [first, ...left.filter((row) => row !== first)];
    more();
    if (first) {
      const node = byId('list').firstChild;
      node.append(transcript(first));
      node.open = true;
    }
  };

  fill('gate', distinct((row) => row.gates));
  fill('category', distinct((row) => [row.category]));
  fill('found', distinct((row) => row.found));
  fill('show', Object.entries(shows).map(([value, [label]]) => [value, label]));
  const change = () => {
    const next = new URLSearchParams();
    document.querySelectorAll('.filters [name]').forEach((field) => { if (field.value) next.set(field.name, field.value); });
    location.replace('#' + next);
  };
  document.querySelectorAll('.filters [name]').forEach((field) => field.addEventListener('input', change));
  byId('more').addEventListener('click', more);
  addEventListener('hashchange', apply);
  document.querySelectorAll('a[href^="#"]').forEach((link) => {
    link.addEventListener('click', () => byId('plays').scrollIntoView());
  });
  apply();
  // How long the page took to open, for whoever measures it.
  document.documentElement.dataset.openedMs = Math.round(performance.now());
})();
