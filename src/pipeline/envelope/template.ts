import type { Row } from '../capture/event.ts';

/** A text with `${column}` places, parsed once and filled for every row. */
export interface Template {
  /** As configured. */
  readonly text: string;
  /** Columns the template needs, each once, in order of appearance. Empty: the text is constant. */
  readonly columns: readonly string[];
  /** The texts between the places, escapes resolved; one more than there are places. */
  readonly literals: readonly string[];
  /** The filled text, or why this row can't fill it; never throws. */
  render(row: Pick<Row, 'text'>): string | Unfilled;
}

/** A row that can't fill a template: its event is parked, not the relay stopped. */
export interface Unfilled {
  readonly column: string;
  /** `missing`: the table has no such column. `null`: the row's value is NULL. */
  readonly problem: 'missing' | 'null';
}

/** `message` completes a sentence that begins with what was parsed, e.g. `has "${" without "}" at character 3`. */
export class TemplateSyntaxError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'TemplateSyntaxError';
  }
}

/**
 * Parses `text`. A place is `${column}`, the column's name exactly as in the table; `$${` stands for a literal `${`;
 * any other `$` is itself.
 * @throws TemplateSyntaxError
 */
export function parseTemplate(text: string): Template {
  const { literals, places } = split(text);
  return {
    text,
    columns: [...new Set(places)],
    literals,
    render: renderer(literals, places),
  };
}

function split(text: string): { literals: string[]; places: string[] } {
  const literals: string[] = [];
  const places: string[] = [];
  let literal = '';
  let from = 0;
  for (let at = text.indexOf('${'); at !== -1; at = text.indexOf('${', from)) {
    if (at > from && text[at - 1] === '$') {
      literal += `${text.slice(from, at - 1)}\${`;
      from = at + 2;
      continue;
    }
    literals.push(literal + text.slice(from, at));
    literal = '';
    const end = text.indexOf('}', at);
    places.push(column(text, at, end));
    from = end + 1;
  }
  literals.push(literal + text.slice(from));
  return { literals, places };
}

function column(text: string, start: number, end: number): string {
  const where = `at character ${start + 1}`;
  if (end === -1) throw new TemplateSyntaxError(`has "\${" without "}" ${where}`);
  const name = text.slice(start + 2, end);
  if (name === '') throw new TemplateSyntaxError(`has "\${}" without a column name ${where}`);
  if (name.trim() !== name) throw new TemplateSyntaxError(`has spaces around the column name ${where}`);
  if (/[{$]/u.test(name)) throw new TemplateSyntaxError(`has "\${" inside "\${" ${where}`);
  return name;
}

/**
 * Called for every event. Most have what the one before had in all places: they get the same string, which costs no
 * memory, and which a map finds by its address.
 */
function renderer(literals: readonly string[], places: readonly string[]): Template['render'] {
  const values = places.map(() => '');
  let filled = literals.join('');
  // Also after a row that could not fill all of its places.
  let stale = false;
  return (row) => {
    for (let i = 0; i < places.length; i++) {
      const name = places[i] as string;
      const value = row.text(name, values[i]);
      if (value === undefined) return { column: name, problem: 'missing' };
      if (value === null) return { column: name, problem: 'null' };
      stale ||= value !== values[i];
      values[i] = value;
    }
    if (stale)
      filled = values.reduce((text, value, i) => text + value + literals[i + 1], literals[0] as string);
    stale = false;
    return filled;
  };
}
