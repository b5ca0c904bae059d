import convict from 'convict';
import type { ConfigProblem } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import { OPTIONS } from './schema.ts';
import type { Group, Option, OptionName } from './schema.ts';

type Parsed<N extends OptionName> = ReturnType<(typeof OPTIONS)[N]['format']>;

/** The checked value of every option; an option without default is undefined when nobody set it. */
export type Values = {
  readonly [N in OptionName]: (typeof OPTIONS)[N]['default'] extends null ? Parsed<N> | undefined : Parsed<N>;
};

/** Options that `<NAME>_FILE` can give as well. */
export type SecretName = {
  [N in OptionName]: (typeof OPTIONS)[N] extends { readonly file: true } ? N : never;
}[OptionName];

export type Layer = 'default' | 'file' | 'environment';

/** What was configured, merged from default < file < environment, and everything wrong with it. */
export interface Settings {
  readonly values: Values;
  /** The value as it was written, before it was checked; `null` when nobody set it. Also for `<NAME>_FILE`. */
  raw(name: string): unknown;
  layer(name: string): Layer;
  /** Collects; nothing is thrown before everything was looked at. */
  readonly problems: ConfigProblem[];
}

/** Names of every variable, `<NAME>_FILE` included, in the order of the schema. */
export const VARIABLES: readonly string[] = Object.entries<Option>(OPTIONS).flatMap(([name, option]) =>
  option.file ? [name, `${name}_FILE`] : [name],
);

/** The variable that names the configuration file; not an option itself, because it can't stand in that file. */
export const CONFIG_FILE_VARIABLE = 'OUTBOX_RELAY_CONFIG';

/**
 * @param env an empty value counts as not set: Helm and Compose pass empty strings for what is left out.
 * @param file the content of the configuration file, keys are variable names.
 */
export function mergeSettings(env: NodeJS.ProcessEnv, file: Readonly<Record<string, unknown>>): Settings {
  const fromEnv: NodeJS.ProcessEnv = {};
  for (const name of VARIABLES) if (env[name] !== undefined && env[name] !== '') fromEnv[name] = env[name];
  const fromFile = Object.fromEntries(
    Object.entries(file).filter(
      ([name, value]) => VARIABLES.includes(name) && value !== null && value !== '',
    ),
  );
  const merged = convict<Record<string, unknown>>(convictSchema(), { env: fromEnv, args: [] }).load(fromFile);
  const layer = (name: string): Layer => {
    if (fromEnv[name] !== undefined) return 'environment';
    return name in fromFile ? 'file' : 'default';
  };
  const raw = (name: string): unknown => {
    const value = merged.get(name);
    const column = COLUMN_OF_DEFAULT[name];
    return column === undefined || layer(name) !== 'default'
      ? value
      : withColumn(value, column, merged.get(column));
  };
  return { values: Object.create(null) as Values, raw, layer, problems: [] };
}

/** The default addresses speak of columns by what they are for, whatever their names are in this table. */
const COLUMN_OF_DEFAULT: Readonly<Record<string, OptionName>> = {
  ROUTE_TOPIC: 'OUTBOX_AGGREGATE_TYPE_COLUMN',
  ROUTE_KEY: 'OUTBOX_AGGREGATE_ID_COLUMN',
};

function withColumn(template: unknown, column: OptionName, name: unknown): unknown {
  const option: Option = OPTIONS[column];
  try {
    return String(template).replace(
      `\${${String(option.default)}}`,
      () => `\${${String(option.format(name))}}`,
    );
  } catch {
    // The name of the column is told as wrong by itself.
    return template;
  }
}

function convictSchema(): Record<string, convict.SchemaObj> {
  const schema: Record<string, convict.SchemaObj> = {};
  for (const [name, option] of Object.entries<Option>(OPTIONS)) {
    const sensitive = option.secret !== undefined;
    // '*' : checked by `checkGroups`, which collects all problems and never repeats a secret in a message.
    schema[name] = { doc: option.doc, default: option.default, format: '*', env: name, sensitive };
    if (option.file) {
      const doc = `File with the value of ${name}.`;
      schema[`${name}_FILE`] = { doc, default: null, format: '*', env: `${name}_FILE` };
    }
  }
  return schema;
}

/** Checks the options of these groups into `settings.values`; a bad one is noted and counts as not set. */
export function checkGroups(settings: Settings, groups: readonly Group[]): void {
  const values = settings.values as Record<string, unknown>;
  for (const [name, option] of Object.entries<Option>(OPTIONS)) {
    if (!groups.includes(option.group)) continue;
    const raw = settings.raw(name);
    values[name] = option.default === null ? undefined : option.format(option.default);
    if (raw === null || raw === option.default) continue;
    try {
      values[name] = option.format(raw);
    } catch (error) {
      settings.problems.push({ variable: name, message: complaint(option, raw, error) });
    }
  }
}

function complaint(option: Option, raw: unknown, error: unknown): string {
  const message = messageOf(error);
  return option.secret === undefined ? `${message}, got ${JSON.stringify(raw)}` : message;
}
