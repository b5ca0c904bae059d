import { BYTEA_OID, decodeHexBytea } from '../bytea.ts';
import type { Row } from '../event.ts';

export interface TableShape {
  readonly columns: readonly string[];
  readonly typeOids: ReadonlyMap<string, number>;
  /** Columns whose type has a fixed length. */
  readonly fixed: ReadonlySet<string>;
}

/** A row that a query brought; its values are the server's text, like those of the stream. */
export class TableRow implements Row {
  private readonly shape: TableShape;
  private readonly values: Readonly<Record<string, string | null>>;

  constructor(shape: TableShape, values: Readonly<Record<string, string | null>>) {
    this.shape = shape;
    this.values = values;
  }

  get columns(): readonly string[] {
    return this.shape.columns;
  }

  /** Bytes of all values, as far as text length tells; for the window, not for limits of a broker. */
  get sizeBytes(): number {
    return this.shape.columns.reduce((sum, column) => sum + (this.values[column]?.length ?? 0), 0);
  }

  text(column: string): string | null | undefined {
    return this.shape.typeOids.has(column) ? (this.values[column] ?? null) : undefined;
  }

  bytes(column: string): Buffer | null | undefined {
    const text = this.text(column);
    if (text === null || text === undefined) return text;
    return this.shape.typeOids.get(column) === BYTEA_OID
      ? decodeHexBytea(Buffer.from(text, 'latin1'))
      : Buffer.from(text, 'utf8');
  }

  typeOid(column: string): number | undefined {
    return this.shape.typeOids.get(column);
  }
}
