import { CERTIFICATE_CODES } from '../../../errors/certificate-codes.ts';
import { type Consequence, RelayError } from '../../../errors/errors.ts';

/** What an error code of a broker means for the messages, and for the operator. */
export interface BrokerError {
  /** Stable name, used in metrics. */
  readonly code: string;
  /** `retry`: unknown, sent again. `park`: this message will never be taken. `stop`: a person must act. */
  readonly consequence: Consequence;
  readonly advice: string;
  /** The leader may have moved: ask for metadata before sending again. */
  readonly staleMetadata?: true;
  /** The topic is not there (yet), or not for us. */
  readonly missing?: true;
}

const LEADER_MOVED = 'Nothing to do: the relay asks for the new leader and sends again.';
const REPLICAS =
  'Bring replicas back into sync, or lower min.insync.replicas; the relay keeps sending until enough of them confirm.';

const NEW_EPOCH = 'Nothing to do: the relay asks for a new producer epoch and sends again.';
const FENCED =
  'Nothing to do when another relay of this outbox has taken over; otherwise look for a copy of the database whose relay sends to the same topics.';

/** Error codes of the protocol. Source: https://kafka.apache.org/protocol#protocol_error_codes. Unlisted ones retry. */
const BROKER_ERRORS: Readonly<Record<number, BrokerError>> = {
  2: retry(
    'corrupt-message',
    'Look for a network device that changes bytes; the broker found a wrong checksum.',
  ),
  3: { ...retry('topic-missing', LEADER_MOVED), staleMetadata: true, missing: true },
  5: { ...retry('leader-not-available', LEADER_MOVED), staleMetadata: true },
  6: { ...retry('not-leader', LEADER_MOVED), staleMetadata: true },
  7: retry('request-timed-out', REPLICAS),
  8: { ...retry('broker-not-available', LEADER_MOVED), staleMetadata: true },
  9: { ...retry('replica-not-available', LEADER_MOVED), staleMetadata: true },
  10: park(
    'message-too-large',
    'Raise max.message.bytes of the topic (or message.max.bytes of the broker), or make the payload smaller.',
  ),
  13: { ...retry('network-exception', LEADER_MOVED), staleMetadata: true },
  17: park(
    'topic-invalid',
    'Correct ROUTE_TOPIC: a topic name has 1 to 249 characters of a-z A-Z 0-9 . _ and -.',
  ),
  18: park('batch-too-large', 'Raise segment.bytes of the topic, or lower KAFKA_MAX_BATCH_BYTES.'),
  19: retry('not-enough-replicas', REPLICAS),
  20: retry('not-enough-replicas', REPLICAS),
  29: {
    ...retry('topic-not-authorized', 'Grant WRITE, DESCRIBE and, for auto-creation, CREATE on the topic.'),
    missing: true,
  },
  31: stop('cluster-not-authorized', 'Grant the Kafka principal of the relay access to the cluster.'),
  32: park(
    'timestamp-refused',
    "Correct the event's time, or raise message.timestamp.after.max.ms / before.max.ms of the topic.",
  ),
  35: stop('version-unsupported', 'Use Kafka 2.1 or later.'),
  42: retry('invalid-request', 'Report this: the broker could not read the request.'),
  43: stop('format-unsupported', 'Set log.message.format.version of the topic to 0.11 or later.'),
  44: park('policy-violation', "The broker's policy refuses this record; ask who runs it."),
  45: retry('sequence-out-of-order', NEW_EPOCH),
  46: retry('sequence-duplicate', NEW_EPOCH),
  47: retry('fenced', FENCED),
  56: { ...retry('storage-error', 'Look at the disks of the broker.'), staleMetadata: true },
  59: retry('producer-forgotten', NEW_EPOCH),
  58: authentication(
    'The broker refused the credentials: correct KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD.',
  ),
  74: { ...retry('leader-epoch', LEADER_MOVED), staleMetadata: true },
  75: { ...retry('leader-epoch', LEADER_MOVED), staleMetadata: true },
  76: stop('compression-unsupported', 'Set KAFKA_COMPRESSION=none, or use a newer broker.'),
  87: park(
    'record-refused',
    'A compacted topic refuses records without a key: give ROUTE_KEY a value, or use another topic.',
  ),
  90: retry('fenced', FENCED),
  89: retry('throttled', 'Raise the quota of the Kafka principal of the relay.'),
};

/** What `errorCode` of a Produce or Metadata answer means. */
export function brokerError(errorCode: number): BrokerError {
  return (
    BROKER_ERRORS[errorCode] ??
    retry(
      `kafka-error-${errorCode}`,
      'Look the code up in the Kafka protocol guide and in the log of the broker.',
    )
  );
}

export const AUTHENTICATION_ADVICE =
  'Check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD (or the token file) against what the broker knows.';

const TLS_ADVICE: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "Give the broker's certificate as KAFKA_SSL_CA_FILE.",
  SELF_SIGNED_CERT_IN_CHAIN: "Give the CA of the broker's certificate as KAFKA_SSL_CA_FILE.",
  UNABLE_TO_GET_ISSUER_CERT: "Give the whole chain of the broker's CA as KAFKA_SSL_CA_FILE.",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "Give the CA of the broker's certificate as KAFKA_SSL_CA_FILE.",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "Give the CA of the broker's certificate as KAFKA_SSL_CA_FILE.",
  CERT_HAS_EXPIRED: "The broker's certificate has expired: renew it.",
  CERT_NOT_YET_VALID: "The broker's certificate is not valid yet: check the clocks, and the certificate.",
  ERR_TLS_CERT_ALTNAME_INVALID:
    "The broker's certificate is for another host name: use that name in KAFKA_BROKERS and advertised.listeners.",
  EPROTO:
    'The port does not speak TLS as the relay does: check KAFKA_SSL_ENABLED and the listener behind the port.',
};
const TLS_OTHER =
  'TLS with the broker failed: check KAFKA_SSL_CA_FILE, and KAFKA_SSL_CERT_FILE with KAFKA_SSL_KEY_FILE if it asks for a certificate.';

/** Classifies why no connection to a broker came about. Errors that are classified already come back as they are. */
export function connectError(error: unknown, broker: string): RelayError {
  if (error instanceof RelayError) return error;
  const { name, message, code, type } = describe(error);
  const text = `Kafka broker ${broker}: ${message}`;
  if (name === 'KafkaJSSASLAuthenticationError' || type === 'SASL_AUTHENTICATION_FAILED') {
    return new RelayError('stop', 'kafka-authentication', text, {
      advice: AUTHENTICATION_ADVICE,
      cause: error,
    });
  }
  if (type === 'UNSUPPORTED_SASL_MECHANISM' || type === 'ILLEGAL_SASL_STATE') {
    const advice = 'Set KAFKA_SASL_MECHANISM to a mechanism that the listener of the broker offers.';
    return new RelayError('stop', 'kafka-authentication', text, { advice, cause: error });
  }
  if (isTlsError(code, message)) {
    return new RelayError('stop', 'kafka-tls', text, { advice: TLS_ADVICE[code] ?? TLS_OTHER, cause: error });
  }
  const advice =
    'Check KAFKA_BROKERS, the network, and that KAFKA_SSL_ENABLED and KAFKA_SASL_MECHANISM fit the listener of the broker.';
  return new RelayError('retry', 'kafka-unreachable', text, { advice, cause: error });
}

function isTlsError(code: string, message: string): boolean {
  return (
    code in TLS_ADVICE ||
    CERTIFICATE_CODES.some((known) => known === code) ||
    code.startsWith('ERR_TLS') ||
    code.startsWith('ERR_SSL') ||
    /PEM|\bSSL\b/.test(message)
  );
}

function describe(error: unknown): { name: string; message: string; code: string; type: string } {
  if (!(error instanceof Error)) return { name: '', message: String(error), code: '', type: '' };
  const { code, type } = error as { code?: unknown; type?: unknown };
  return {
    name: error.name,
    message: error.message,
    code: typeof code === 'string' ? code : '',
    type: typeof type === 'string' ? type : '',
  };
}

function retry(code: string, advice: string): BrokerError {
  return { code, consequence: 'retry', advice };
}

function park(code: string, advice: string): BrokerError {
  return { code, consequence: 'park', advice };
}

function stop(code: string, advice: string): BrokerError {
  return { code, consequence: 'stop', advice };
}

function authentication(advice: string): BrokerError {
  return { code: 'kafka-authentication', consequence: 'stop', advice };
}
