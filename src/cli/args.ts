import { parseArgs } from 'node:util';
import { UsageError } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import { nearest } from '../config/nearest.ts';
import type { CommandArgs, CommandName } from './command.ts';

export interface CommandOption {
  readonly type: 'string' | 'boolean';
  /** What the value is called in the help text. */
  readonly value?: string;
  readonly help: string;
}

export interface CommandSpec {
  readonly summary: string;
  readonly options: Readonly<Record<string, CommandOption>>;
}

/** Options of every command. */
export const COMMON_OPTIONS: CommandSpec['options'] = {
  config: {
    type: 'string',
    value: 'FILE',
    help: 'read settings from FILE (.json or .env); environment wins',
  },
  help: { type: 'boolean', help: 'show this help' },
  version: { type: 'boolean', help: 'show the version' },
};

export const COMMANDS: Readonly<Record<CommandName, CommandSpec>> = {
  run: { summary: 'relay events until SIGTERM (the default command)', options: {} },
  migrate: {
    summary: "create or update the relay's tables, function and publication",
    options: {
      'dry-run': { type: 'boolean', help: 'print the SQL instead of applying it' },
      adopt: { type: 'boolean', help: "add the relay's columns to an existing outbox table" },
    },
  },
  config: {
    summary: 'show the effective settings and where each comes from, secrets masked',
    options: { json: { type: 'boolean', help: 'print JSON' } },
  },
  demo: {
    summary: 'an embedded PostgreSQL, a small shop that writes orders, and the relay, in one terminal',
    options: {
      broker: { type: 'string', value: 'NAME', help: 'stdout (default), kafka or rabbitmq' },
      'broker-url': {
        type: 'string',
        value: 'URL',
        help: 'a running broker; else KAFKA_BROKERS or RABBITMQ_URL, else one is started',
      },
      events: { type: 'string', value: 'N', help: 'end after N committed events' },
      rate: { type: 'string', value: 'N', help: 'committed events per second' },
    },
  },
};

const LATER = new Set(['doctor', 'status', 'dead-letters']);

export interface CommandLine extends CommandArgs {
  readonly help: boolean;
  readonly version: boolean;
}

/** @param argv what follows the program's name. Throws UsageError. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  const [first] = argv;
  const named = first !== undefined && !first.startsWith('-');
  const command = named ? commandName(first) : 'run';
  const values = parseOptions(command, named ? argv.slice(1) : [...argv]);
  return { command, values, help: values['help'] === true, version: values['version'] === true };
}

function commandName(word: string): CommandName {
  if (Object.hasOwn(COMMANDS, word)) return word as CommandName;
  if (LATER.has(word)) throw new UsageError(`the command "${word}" is not in this release`);
  const known = Object.keys(COMMANDS);
  throw new UsageError(
    `unknown command "${word}"; did you mean "${nearest(word, known)}"? Commands: ${known.join(', ')}`,
  );
}

function parseOptions(command: CommandName, args: string[]): CommandArgs['values'] {
  const options = { ...COMMON_OPTIONS, ...COMMANDS[command].options };
  const types: Record<string, { type: 'string' | 'boolean'; short?: string }> = {};
  for (const [name, option] of Object.entries(options)) types[name] = { type: option.type };
  types['help'] = { type: 'boolean', short: 'h' };
  try {
    return {
      ...parseArgs({ args, options: types, strict: true, allowPositionals: false }).values,
    };
  } catch (error) {
    throw new UsageError(usageMessage(command, error));
  }
}

/** Node's message without its advice about positionals, which doesn't fit this program. */
function usageMessage(command: CommandName, error: unknown): string {
  const text = messageOf(error);
  const [sentence = text] = text.split('. To specify');
  return `${sentence.replace(/\.$/u, '').replaceAll('\n', ' ')}; see "outbox-relay ${command} --help"`;
}
