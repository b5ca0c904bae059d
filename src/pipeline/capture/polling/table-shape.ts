import { DatabaseError, type Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { readColumns } from '../../../postgres/columns.ts';
import { assertEventColumns } from '../preflight.ts';

/** The table's columns when they were read. */
export interface TableShape {
  readonly columns: readonly string[];
  /** Of domains, those of the types below them. */
  readonly typeOids: ReadonlyMap<string, number>;
  /** Columns whose type has a fixed length. */
  readonly fixed: ReadonlySet<string>;
  /** For `isAltered`. */
  readonly signatures: readonly string[];
}

/** A statement was made for columns that are not those of the table any more. */
export class Altered extends Error {}

/**
 * The shape of a table whose owner may alter it at any time, while a poll goes on for weeks. By an old one a body would be
 * published in the text form of its new type, and a dead letter would lack a column.
 */
export class CurrentShape {
  private readonly config: Config;
  private readonly client: Client;
  private readonly table: string;
  private shape: TableShape | undefined;

  /** `table`: qualified and quoted. */
  constructor(config: Config, client: Client, table: string) {
    this.config = config;
    this.client = client;
    this.table = table;
  }

  /**
   * What `read` brings, or undefined when the table turned out to be altered: then the shape was read anew, and nothing
   * counts that was read or measured by the old one. Throws what `read` throws for another reason, and RelayError('stop')
   * when a column is gone without which events would be sent incomplete.
   */
  async during<Result extends object>(
    read: (shape: TableShape) => Promise<Result>,
  ): Promise<Result | undefined> {
    const shape = (this.shape ??= await this.read());
    try {
      return await read(shape);
    } catch (error) {
      if (!(error instanceof Altered) && !isRefused(error)) throw error;
      this.shape = await this.read();
      // What the server refuses for the columns that there are it would refuse for ever.
      if (isRefused(error) && isSame(shape, this.shape)) throw error;
      return undefined;
    }
  }

  private async read(): Promise<TableShape> {
    const columns = await readColumns(this.client, this.table);
    const typeOids = new Map(columns.map(({ name, oid }) => [name, oid]));
    assertEventColumns(this.config, typeOids);
    return {
      columns: columns.map(({ name }) => name),
      typeOids,
      fixed: new Set(columns.filter(({ fixed }) => fixed).map(({ name }) => name)),
      signatures: columns.map(({ signature }) => signature),
    };
  }
}

function isSame(one: TableShape, other: TableShape): boolean {
  return one.signatures.join('\n') === other.signatures.join('\n');
}

/** A column is gone, or there is no such function of its new type. */
function isRefused(error: unknown): boolean {
  return error instanceof DatabaseError && /^(?:42703|42883)$/.test(error.code ?? '');
}
