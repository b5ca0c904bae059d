/** Text columns to the left, figures to the right. NaN is a figure that there is not. */
export function table(
  title: string,
  titles: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const cells = [[title, ...titles], ...rows.map((row) => row.map(cell))];
  const widths = [title, ...titles].map((_, column) =>
    Math.max(...cells.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((text, column) =>
        column === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[column] ?? 0),
      )
      .join('  ');
  return cells.map(line).join('\n');
}

function cell(value: string | number): string {
  if (typeof value === 'string') return value;
  if (Number.isNaN(value)) return '';
  return value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 });
}
