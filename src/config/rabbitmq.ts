import { RelayError } from '../errors/errors.ts';
import type { RabbitmqConfig, Secret } from './config.ts';
import { isGiven, tlsConfig } from './brokers.ts';
import { parseTemplate } from '../pipeline/envelope/template.ts';
import { textList } from './formats.ts';
import { refuseMisplacedAt } from './mask.ts';
import { problemOf, secretOf } from './secret.ts';
import type { Settings } from './settings.ts';

const FORM = 'expected amqp://user:password@host:port/vhost or amqps://…, comma-separated';

/** Notes problems; what it returns is of use only when there are none. */
export function rabbitmqConfig(settings: Settings, warn: (text: string) => void): RabbitmqConfig {
  const { values } = settings;
  const url = secretOf(settings, 'RABBITMQ_URL');
  const password = secretOf(settings, 'RABBITMQ_PASSWORD');
  const tls = tlsConfig(settings, 'RABBITMQ');
  const schemes = checkedSchemes(settings, url);
  const encrypted = schemes.has('amqps:');
  const urls = (): readonly string[] => {
    const entries = urlList(url?.() ?? '');
    requireSchemes(entries, schemes);
    return entries.map((entry) => withCredentials(entry, values.RABBITMQ_USERNAME, password));
  };
  if (schemes.size > 0 && !encrypted && tls.given.length > 0) {
    settings.problems.push({
      variable: 'RABBITMQ_URL',
      message: `amqps:// is needed with ${tls.given.join(' and ')}`,
    });
  }
  if (values.RABBITMQ_AUTH === 'external') checkExternal(settings, encrypted || schemes.size === 0);
  if (schemes.has('amqp:')) warnOfClearText(urls(), warn);
  return {
    kind: 'rabbitmq',
    urls,
    exchange: values.RABBITMQ_EXCHANGE,
    exchangeIsConstant: isConstant(values.RABBITMQ_EXCHANGE ?? values.ROUTE_TOPIC),
    exchangeType: values.RABBITMQ_EXCHANGE_TYPE,
    declare: values.RABBITMQ_DECLARE,
    routingKey: values.RABBITMQ_ROUTING_KEY,
    window: values.RABBITMQ_WINDOW,
    confirmTimeoutMs: values.RABBITMQ_CONFIRM_TIMEOUT_MS,
    tls: encrypted ? tls.config : undefined,
    auth: values.RABBITMQ_AUTH,
  };
}

function isConstant(template: string): boolean {
  return parseTemplate(template).columns.length === 0;
}

/** The protocols in use, each once; empty when the URLs are wrong or missing, which is noted. */
function checkedSchemes(settings: Settings, url: Secret | undefined): ReadonlySet<string> {
  const variable = settings.raw('RABBITMQ_URL') === null ? 'RABBITMQ_URL_FILE' : 'RABBITMQ_URL';
  if (!isGiven(settings, 'RABBITMQ_URL')) {
    settings.problems.push({ variable: 'RABBITMQ_URL', message: `required with BROKER=rabbitmq: ${FORM}` });
  }
  if (url === undefined) return new Set();
  const schemes = new Set<string>();
  const problem = problemOf(variable, () => {
    for (const entry of urlList(url())) schemes.add(parseUrl(entry).protocol);
    if (schemes.size === 0) throw new Error(FORM);
    if (schemes.size > 1) throw new Error('mixes amqp:// and amqps://; all nodes of a cluster need the same');
  });
  if (problem === undefined) return schemes;
  settings.problems.push(problem);
  return new Set();
}

/** A file that is rotated may name other hosts and passwords; what TLS is made of was decided at start. */
function requireSchemes(entries: readonly string[], schemes: ReadonlySet<string>): void {
  const [started] = schemes;
  if (started === undefined) return;
  const problem = problemOf('RABBITMQ_URL', () => {
    for (const entry of entries) parseUrl(entry);
  });
  if (problem)
    throw new RelayError('stop', 'rabbitmq-url', `RABBITMQ_URL: ${problem.message}`, {
      advice: 'Correct the file that RABBITMQ_URL_FILE names; it is read anew.',
    });
  if (entries.every((entry) => parseUrl(entry).protocol === started)) return;
  throw new RelayError('stop', 'rabbitmq-url', `RABBITMQ_URL no longer begins with ${started}//`, {
    advice: 'Restart the relay to change between amqp:// and amqps://.',
  });
}

function warnOfClearText(urls: readonly string[], warn: (text: string) => void): void {
  const exposed = urls.map((entry) => new URL(entry)).some((url) => url.password !== '' && !isLocal(url));
  if (exposed) warn('RABBITMQ_URL: without TLS the password is sent in the clear; use amqps://');
}

function isLocal({ hostname }: URL): boolean {
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/u.test(hostname);
}

function checkExternal(settings: Settings, encrypted: boolean): void {
  const variable = 'RABBITMQ_AUTH';
  if (!encrypted) settings.problems.push({ variable, message: 'external needs an amqps:// URL' });
  if (isGiven(settings, 'RABBITMQ_SSL_CERT') || isGiven(settings, 'RABBITMQ_SSL_KEY')) return;
  settings.problems.push({
    variable,
    message: 'external needs a client certificate: RABBITMQ_SSL_CERT_FILE and RABBITMQ_SSL_KEY_FILE',
  });
}

function urlList(text: string): readonly string[] {
  return textList(text);
}

/** The messages repeat nothing of the URL: it may hold a password. */
function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['amqp:', 'amqps:'].includes(url.protocol) || url.hostname === '')
    throw new Error(FORM);
  refuseMisplacedAt(text);
  const heartbeat = url.searchParams.get('heartbeat');
  // 0 turns heartbeats off: a broker that is gone without a word would never be missed.
  if (heartbeat !== null && !/^[1-9]\d{0,4}$/u.test(heartbeat))
    throw new Error(
      'heartbeat: expected seconds as a whole number of at least 1; without it the relay takes 10',
    );
  return url;
}

function withCredentials(text: string, username: string | undefined, password: Secret | undefined): string {
  if (username === undefined && password === undefined) return text;
  const url = parseUrl(text);
  // Encoded here, because the URL standard's setters leave a "%" of the password as it is.
  if (username !== undefined) url.username = encodeURIComponent(username);
  if (password !== undefined) url.password = encodeURIComponent(password());
  return url.href;
}
