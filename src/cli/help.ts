import { COMMANDS, COMMON_OPTIONS } from './args.ts';
import type { CommandSpec } from './args.ts';
import type { CommandName } from './command.ts';

/** The text of `outbox-relay --help`. */
export function programHelp(): string {
  const commands = Object.entries(COMMANDS).map(([name, spec]) => [name, spec.summary] as const);
  return [
    'Usage: outbox-relay [command] [options]',
    '',
    'Reads a PostgreSQL outbox table by logical replication and forwards each row to Kafka, RabbitMQ or stdout.',
    '',
    'Commands:',
    ...table(commands),
    '',
    'Options:',
    ...optionLines(COMMON_OPTIONS),
    '',
    'Settings come from environment variables: DATABASE_URL, BROKER, KAFKA_BROKERS, RABBITMQ_URL, …',
    'All of them: config/reference.md; the ones in effect: outbox-relay config.',
    'Exit codes: 0 done, 1 failed, 2 wrong usage, 78 bad configuration.',
    '',
  ].join('\n');
}

/** The text of `outbox-relay COMMAND --help`. */
export function commandHelp(command: CommandName): string {
  const { summary, options } = COMMANDS[command];
  return [
    `Usage: outbox-relay ${command} [options]`,
    '',
    `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`,
    '',
    'Options:',
    ...optionLines({ ...options, ...COMMON_OPTIONS }),
    '',
  ].join('\n');
}

function optionLines(options: CommandSpec['options']): string[] {
  const rows = Object.entries(options).map(
    ([name, option]) => [`--${name}${option.value ? ` ${option.value}` : ''}`, option.help] as const,
  );
  return table(rows);
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}
