import type { Format } from '../formats.ts';

export type Group =
  | 'database'
  | 'outbox'
  | 'source'
  | 'broker'
  | 'kafka'
  | 'rabbitmq'
  | 'route'
  | 'limits'
  | 'operation';

/** One setting; its name is the environment variable and the key in a configuration file. */
export interface Option {
  readonly group: Group;
  readonly doc: string;
  /** `null`: not set. Otherwise what a user would write. */
  readonly default: string | null;
  readonly format: Format<unknown>;
  /** Never shown. `url`: only the passwords inside are masked. */
  readonly secret?: true | 'url';
  /** A second variable `<NAME>_FILE` names a file with the value. */
  readonly file?: true;
}
