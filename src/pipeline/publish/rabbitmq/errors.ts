import { RelayError } from '../../../errors/errors.ts';
import type { Consequence } from '../../../errors/errors.ts';
import { CERTIFICATE_CODES } from '../../../errors/certificate-codes.ts';
import { messageOf } from '../../../errors/thrown.ts';
import { ROUTE_REFUSED } from '../missing-targets.ts';
import type { Outcome } from '../publisher.ts';

interface Rule {
  readonly consequence: Consequence;
  readonly code: string;
  readonly advice: string;
  /** Some message on the channel or connection caused it: sending all of them together again would repeat it. */
  readonly causedByMessage?: boolean;
  /** Or the broker itself did: a message that was alone is a suspect still, and no more than that. */
  readonly provesNothing?: boolean;
}

const RETRY_LATER = 'The relay tries again by itself; look at the log of RabbitMQ when it goes on.';

/** AMQP reply codes (https://www.rabbitmq.com/amqp-0-9-1-reference#constants) that end a channel or a connection. */
const BY_REPLY_CODE: ReadonlyMap<number, Rule> = new Map<number, Rule>([
  [
    311,
    {
      consequence: 'park',
      code: 'message-too-large',
      advice: 'Make the payload smaller.',
      causedByMessage: true,
    },
  ],
  [320, { consequence: 'retry', code: 'connection-forced', advice: RETRY_LATER }],
  [
    403,
    {
      consequence: 'retry',
      code: 'access-refused',
      advice:
        'Grant the user write permission on the exchange (rabbitmqctl set_permissions), and on the routing key where topics are restricted.',
      causedByMessage: true,
    },
  ],
  [
    404,
    {
      consequence: 'retry',
      code: 'exchange-missing',
      advice: 'Declare the exchange, or let the relay declare it.',
      causedByMessage: true,
    },
  ],
  [405, { consequence: 'retry', code: 'resource-locked', advice: RETRY_LATER }],
  [
    406,
    {
      consequence: 'park',
      code: 'precondition-failed',
      advice: 'RabbitMQ refuses this message as it is; its text says why.',
      causedByMessage: true,
    },
  ],
  [
    501,
    {
      consequence: 'park',
      code: 'frame-error',
      advice: 'The headers do not fit into one frame: make them smaller or raise frame_max.',
      causedByMessage: true,
    },
  ],
  [
    502,
    {
      consequence: 'park',
      code: 'syntax-error',
      advice: 'RabbitMQ can not read this message; its log says why.',
      causedByMessage: true,
    },
  ],
  [503, { consequence: 'retry', code: 'command-invalid', advice: RETRY_LATER }],
  [504, { consequence: 'retry', code: 'channel-error', advice: RETRY_LATER }],
  [
    505,
    {
      consequence: 'park',
      code: 'unexpected-frame',
      advice: 'RabbitMQ can not read this message; its log says why.',
      causedByMessage: true,
    },
  ],
  [506, { consequence: 'retry', code: 'resource-error', advice: RETRY_LATER }],
  [530, { consequence: 'retry', code: 'not-allowed', advice: RETRY_LATER, causedByMessage: true }],
  [540, { consequence: 'retry', code: 'not-implemented', advice: RETRY_LATER, causedByMessage: true }],
  [
    // RabbitMQ answers so when a process of its own crashes, for whatever reason: a poison message, or a quorum queue
    // whose nodes are away. Were the message that was alone refused for it, five closures would park a healthy event
    // within seconds. So it is never refused, but sent alone, apart from the others (`Apart`), and ever more seldom.
    541,
    {
      consequence: 'retry',
      code: 'internal-error',
      advice: RETRY_LATER,
      causedByMessage: true,
      provesNothing: true,
    },
  ],
]);

const CHECK_ADDRESS = 'Check that RabbitMQ runs and that host and port in RABBITMQ_URL are right.';
const CHECK_CA = 'Name the certificate authority of the broker in RABBITMQ_SSL_CA.';

function unreachable(code: string): Rule {
  return { consequence: 'retry', code, advice: CHECK_ADDRESS };
}

function certificate(advice: string): Rule {
  return { consequence: 'stop', code: 'rabbitmq-tls-certificate', advice };
}

/** Codes of Node's sockets and of its TLS. */
const BY_SOCKET_CODE: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ['ECONNREFUSED', unreachable('connection-refused')],
  ['ECONNRESET', unreachable('connection-reset')],
  ['EPIPE', unreachable('connection-reset')],
  ['ENOTFOUND', unreachable('host-not-found')],
  ['EAI_AGAIN', unreachable('host-not-found')],
  ['EHOSTUNREACH', unreachable('host-unreachable')],
  ['ENETUNREACH', unreachable('host-unreachable')],
  ['ETIMEDOUT', unreachable('connect-timeout')],
  ...CERTIFICATE_CODES.map((code) => [code, certificate(CHECK_CA)] as const),
  ['CERT_HAS_EXPIRED', certificate('Renew the certificate of the broker, or of its authority.')],
  ['CERT_NOT_YET_VALID', certificate('Check the clocks and the certificate of the broker.')],
  [
    'ERR_TLS_CERT_ALTNAME_INVALID',
    certificate('Use the host name that the certificate of the broker is made for.'),
  ],
]);

/** What amqplib only says as text. In order: the first that matches. */
const BY_TEXT: readonly (readonly [RegExp, Rule])[] = [
  [
    /ACCESS[-_]REFUSED|login was refused/i,
    {
      consequence: 'stop',
      code: 'rabbitmq-authentication',
      advice: 'Check user and password in RABBITMQ_URL, or the client certificate with EXTERNAL.',
    },
  ],
  [
    /SASL mechanism \S+ is not provided/,
    {
      consequence: 'stop',
      code: 'rabbitmq-mechanism',
      advice: 'Enable this login mechanism in RabbitMQ (EXTERNAL: the plugin rabbitmq_auth_mechanism_ssl).',
    },
  ],
  [
    // amqplib does not show the close frame that comes instead: mostly NOT_ALLOWED, seldom a virtual host still starting.
    /Expected ConnectionOpenOk; got <ConnectionClose/,
    {
      consequence: 'stop',
      code: 'rabbitmq-vhost',
      advice: 'Check that the virtual host in RABBITMQ_URL exists and that the user may use it.',
    },
  ],
  [/Heartbeat timeout/, { consequence: 'retry', code: 'heartbeat-timeout', advice: RETRY_LATER }],
  [/ETIMEDOUT|no connection within \d+ ms/, unreachable('connect-timeout')],
];

const TLS_HANDSHAKE: Rule = {
  consequence: 'stop',
  code: 'rabbitmq-tls',
  advice: 'Check that the port speaks TLS (amqps, usually 5671) and that it accepts the client certificate.',
};

const LOST: Rule = { consequence: 'retry', code: 'connection-lost', advice: CHECK_ADDRESS };

function property(error: unknown, name: string): unknown {
  return typeof error === 'object' && error !== null ? (error as Record<string, unknown>)[name] : undefined;
}

function ruleOf(error: unknown): Rule {
  const code = property(error, 'code');
  if (typeof code === 'number') return BY_REPLY_CODE.get(code) ?? LOST;
  const known = typeof code === 'string' ? BY_SOCKET_CODE.get(code) : undefined;
  if (known !== undefined) return known;
  if (typeof code === 'string' && /^ERR_(SSL|OSSL|TLS)_|^EPROTO$/.test(code)) return TLS_HANDSHAKE;
  const text = messageOf(error);
  return BY_TEXT.find(([pattern]) => pattern.test(text))?.[1] ?? LOST;
}

/** Classifies why a connection could not be made. `where` is host and port, without credentials. */
export function connectError(error: unknown, where: string, connectedBefore: boolean): RelayError {
  if (error instanceof RelayError) return error;
  const rule = ruleOf(error);
  // A virtual host is refused for a moment while its node starts: what has worked once is tried again.
  const consequence = connectedBefore && rule.code === 'rabbitmq-vhost' ? 'retry' : rule.consequence;
  return new RelayError(consequence, rule.code, `RabbitMQ at ${where}: ${messageOf(error)}`, {
    advice: rule.advice,
    cause: error,
  });
}

/** RabbitMQ did not answer in time. Its address is right: something behind it is not. */
export function confirmTimeout(ms: number): RelayError {
  return new RelayError('retry', 'confirm-timeout', `no confirm within ${ms} ms`, {
    advice:
      'Look for a queue that confirms nothing (rabbitmqctl list_unresponsive_queues), such as a quorum queue without a majority of its nodes.',
  });
}

export function blockedTooLong(): RelayError {
  return new RelayError(
    'retry',
    'connection-blocked',
    'the broker has kept the connection blocked for too long',
    {
      advice: 'Look at the alarms of RabbitMQ (rabbitmq-diagnostics alarms): memory or disk is short.',
    },
  );
}

/** For the operator: what happened, and what to do where that is known. */
export function reasonOf(error: unknown): string {
  return error instanceof RelayError ? `${error.message}. ${error.advice}` : messageOf(error);
}

/** The outcome of everything that was outstanding when a channel or a connection ended. */
export function lostOutcome(error: unknown): Outcome {
  const { code } = error instanceof RelayError ? error : ruleOf(error);
  return { kind: 'unknown', code, reason: reasonOf(error) };
}

/** The outcome of a message that was alone when its channel or connection was closed because of it. */
export function culpritOutcome(error: unknown): Outcome {
  const rule = ruleOf(error);
  if (rule.causedByMessage !== true || rule.provesNothing === true) return lostOutcome(error);
  const text = messageOf(error);
  return {
    kind: 'rejected',
    code: ofRoute(text) ? ROUTE_REFUSED : maxSizeIn(text) === undefined ? rule.code : 'message-too-large',
    reason: `${text}. ${rule.advice}`,
    permanent: rule.consequence === 'park',
    scope: 'event',
    // A permission that is being changed needs a person, as a missing exchange does: attempts in a row would park in seconds.
    ...(['exchange-missing', 'access-refused'].includes(rule.code) ? { missingDestination: true } : {}),
  };
}

/** RabbitMQ (topic permissions): "access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'u'". */
function ofRoute(text: string): boolean {
  return /access to topic '/.test(text);
}

/** Whom a closure is about, as far as its code and text tell. */
export type Blame =
  | { readonly kind: 'nobody' }
  | { readonly kind: 'missing-exchange' }
  | { readonly kind: 'refused-exchange'; readonly exchange: string }
  | { readonly kind: 'size'; readonly maxBytes: number }
  | { readonly kind: 'some-message' };

export function blameOf(error: unknown): Blame {
  if (ruleOf(error).causedByMessage !== true) return { kind: 'nobody' };
  const text = messageOf(error);
  const code = property(error, 'code');
  if (code === 404 && /no exchange '/.test(text)) return { kind: 'missing-exchange' };
  if (ofRoute(text)) return { kind: 'some-message' };
  const refused = code === 403 ? /exchange '([^']*)'/.exec(text)?.[1] : undefined;
  if (refused !== undefined) return { kind: 'refused-exchange', exchange: refused };
  const maxBytes = maxSizeIn(text);
  return maxBytes === undefined ? { kind: 'some-message' } : { kind: 'size', maxBytes };
}

/** RabbitMQ: "message size 200 is larger than configured max size 100". */
function maxSizeIn(text: string): number | undefined {
  const size = /larger than (?:configured )?max size (\d+)/.exec(text)?.[1];
  return size === undefined ? undefined : Number(size);
}
