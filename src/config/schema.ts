import { BROKER_OPTIONS } from './options/broker.ts';
import { DATABASE_OPTIONS } from './options/database.ts';
import type { Option } from './options/option.ts';
import { RELAY_OPTIONS } from './options/relay.ts';

export type { Group, Option } from './options/option.ts';

/** Every setting, once; `load.ts`, `outbox-relay config` and `config/reference.*` all read this list. */
export const OPTIONS = {
  ...DATABASE_OPTIONS,
  ...BROKER_OPTIONS,
  ...RELAY_OPTIONS,
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof OPTIONS;
