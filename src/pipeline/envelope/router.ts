import type { Config } from '../../config/config.ts';
import { rowBytes, type OutboxEvent, type Row } from '../capture/event.ts';
import { BYTEA_OID } from '../capture/bytea.ts';
import type { Message } from './message.ts';
import { NO_HEADERS, parseHeaders } from './headers.ts';
import { parseTemplate, type Template } from './template.ts';
import { parseUtcTimestamp } from './timestamp.ts';

/** Why an event has no address: it is parked with this, others flow. */
export interface Unaddressable {
  readonly event: OutboxEvent;
  readonly code: 'address-incomplete' | 'headers-invalid' | 'event-too-large';
  readonly reason: string;
}

export type Address = (event: OutboxEvent) => Message | Unaddressable;

export function isUnaddressable(result: Message | Unaddressable): result is Unaddressable {
  return 'code' in result;
}

const JSON_OIDS: ReadonlySet<number | undefined> = new Set([114, 3802]);

/** Builds the function that turns a row into an addressed message. Pure; the templates were checked with the configuration. */
export function createRouter(config: Config): Address {
  const { columns } = config.outbox;
  const destination = parseTemplate(destinationTemplate(config));
  const key = parseTemplate(config.route.key);
  const routingKey = config.broker.kind === 'rabbitmq' ? config.broker.routingKey : undefined;
  const routing = routingKey === undefined ? key : parseTemplate(routingKey);

  let lastType = '';

  return (event) => {
    if (rowBytes(event) > config.maxEventBytes) return tooLarge(event, config.maxEventBytes);
    const { row } = event;
    const to = fill(destination, row);
    const keyText = fill(key, row);
    const routingText = routing === key ? keyText : fill(routing, row);
    const id = fill(columnTemplate(columns.id), row);
    const type = row.text(columns.type, lastType);
    lastType = type ?? '';
    for (const part of [to, keyText, routingText, id]) {
      if (part instanceof Refused) return { event, code: 'address-incomplete', reason: part.reason };
    }
    if (type === undefined) return { event, code: 'address-incomplete', reason: missingType(columns.type) };
    const headers = parseHeaders(row.text(columns.headers, NO_HEADERS));
    if (typeof headers === 'string') return { event, code: 'headers-invalid', reason: headers };
    const body = row.bytes(columns.payload) ?? null;
    return {
      event,
      destination: to as string,
      key: keyText as string,
      routingKey: routingText as string,
      id: id as string,
      type: lastType,
      contentType: contentTypeOf(row.typeOid(columns.payload)),
      timestampMs: timestampOf(event, columns.createdAt),
      headers,
      body,
      sizeBytes: event.sizeBytes,
      delivery: undefined,
    };
  };
}

/** Columns that the address of an event is made of. */
export function addressColumns(config: Config): readonly string[] {
  const routingKey = config.broker.kind === 'rabbitmq' ? config.broker.routingKey : undefined;
  const templates = [destinationTemplate(config), config.route.key, routingKey ?? config.route.key];
  return templates.flatMap((template) => parseTemplate(template).columns);
}

function destinationTemplate(config: Config): string {
  const exchange = config.broker.kind === 'rabbitmq' ? config.broker.exchange : undefined;
  return exchange ?? config.route.topic;
}

class Refused {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

function fill(template: Template, row: Row): string | Refused {
  const filled = template.render(row);
  if (typeof filled === 'string') return filled;
  const why = filled.problem === 'null' ? 'is NULL in this row' : 'does not exist';
  return new Refused(`"${template.text}" can't be filled: column "${filled.column}" ${why}`);
}

function missingType(column: string): string {
  return `the type of the event is not known: column "${column}" does not exist`;
}

const columnTemplates = new Map<string, Template>();

function columnTemplate(column: string): Template {
  let template = columnTemplates.get(column);
  if (!template) {
    template = parseTemplate(`\${${column}}`);
    columnTemplates.set(column, template);
  }
  return template;
}

function contentTypeOf(payloadOid: number | undefined): string {
  if (JSON_OIDS.has(payloadOid)) return 'application/json';
  return payloadOid === BYTEA_OID ? 'application/octet-stream' : 'text/plain; charset=utf-8';
}

/** The row's own time where it has one, else that of its commit. */
function timestampOf(event: OutboxEvent, column: string): number {
  const text = event.row.text(column);
  const parsed = text ? parseUtcTimestamp(text) : Number.NaN;
  return Math.trunc(Number.isNaN(parsed) ? event.transaction.committedAtMs : parsed);
}

function tooLarge(event: OutboxEvent, limit: number): Unaddressable {
  return {
    event,
    code: 'event-too-large',
    reason: `the event has ${rowBytes(event)} bytes, MAX_EVENT_BYTES allows ${limit}`,
  };
}
