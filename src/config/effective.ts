import { textList } from './formats.ts';
import { MASK, maskUrl } from './mask.ts';
import { OPTIONS } from './schema.ts';
import type { Option } from './schema.ts';
import { VARIABLES } from './settings.ts';
import type { Settings } from './settings.ts';

export interface EffectiveSetting {
  readonly name: string;
  /** As it was written, secrets masked; null when not set. */
  readonly value: string | null;
  readonly source: 'default' | 'file' | 'environment' | 'not set';
}

/** What `outbox-relay config` shows: every setting except those of a broker that is not in use. */
export function effectiveSettings(settings: Settings): readonly EffectiveSetting[] {
  return VARIABLES.filter((name) => isInUse(settings, name)).map((name) => {
    const raw = settings.raw(name);
    if (raw === null) return { name, value: null, source: 'not set' };
    return { name, value: masked(name, raw), source: settings.layer(name) };
  });
}

function isInUse(settings: Settings, name: string): boolean {
  const { group } = optionOf(name);
  const isBroker = group === 'kafka' || group === 'rabbitmq';
  return !isBroker || group === settings.values.BROKER;
}

function optionOf(name: string): Option {
  const options: Readonly<Record<string, Option>> = OPTIONS;
  const option = options[name] ?? options[name.replace(/_FILE$/u, '')];
  if (option === undefined) throw new Error(`no option ${name}`);
  return option;
}

function masked(name: string, raw: unknown): string {
  const text = Array.isArray(raw) ? raw.join(',') : String(raw);
  const options: Readonly<Record<string, Option>> = OPTIONS;
  const secret = options[name]?.secret;
  if (secret === undefined) return text;
  if (secret !== 'url') return MASK;
  // Only RabbitMQ takes several; a comma of a database URL may be one of its password.
  return name === 'RABBITMQ_URL' ? textList(raw).map(maskUrl).join(',') : maskUrl(text);
}
