/** Writes the pages that are made from the settings' schema: `npm run config:reference`. */
import { writeFileSync } from 'node:fs';
import { OPTIONS } from '../src/config/schema.ts';
import type { Group, Option } from '../src/config/schema.ts';

const TITLES: Readonly<Record<Group, string>> = {
  database: 'Database',
  outbox: 'Outbox table',
  source: 'Capture and clean-up',
  broker: 'Broker',
  kafka: 'Kafka (`BROKER=kafka`)',
  rabbitmq: 'RabbitMQ (`BROKER=rabbitmq`)',
  route: 'Routing',
  limits: 'Limits',
  operation: 'Operation',
};

const MARKDOWN_INTRODUCTION = `<!-- Made by \`npm run config:reference\` from src/config/schema.ts; a test fails when it is stale. -->

# Settings

Every setting is an environment variable. The same names may stand in a file, given by \`--config FILE\` or
\`OUTBOX_RELAY_CONFIG\`: lines of \`NAME=value\` with \`#\` comments, or one JSON object when its name ends in \`.json\`.
The environment wins over the file; an empty variable counts as not set. \`outbox-relay config\` shows the values in
effect and where each comes from.

- **Secrets** marked *or \`_FILE\`* may be given as \`<NAME>_FILE\`, the path of a file. It is read again at every
  connect, so a rotated secret needs no restart.
- **Sizes** are bytes: \`900000\`, \`64MiB\`, \`4GiB\`. **Times** are milliseconds, unless the text says otherwise.
- **Templates** take columns of the row: \`\${column}\`; \`$\${\` stands for a literal \`\${\`.
- A wrong configuration ends the process at once with exit code 78 and every problem by name.
- A variable that begins like one of these and is none is reported with the nearest name. Kubernetes sets such
  variables for every Service (\`KAFKA_SERVICE_HOST\`, \`KAFKA_PORT_9092_TCP\`); they are ignored. A Service named \`http\`
  sets \`HTTP_PORT\` itself: set the variable in the pod, or \`enableServiceLinks: false\`.
`;

const ENV_INTRODUCTION = `# Made by \`npm run config:reference\` from src/config/schema.ts; a test fails when it is stale.
# Every setting with its default. Copy it, remove the # before what you change, and give it as --config FILE.
# Explanations: reference.md beside this file.
`;

/** `config/reference.md`: a table for each group. */
export function renderMarkdown(): string {
  const sections = [...groups()].map(([group, options]) =>
    [`## ${TITLES[group]}`, '', '| name | default | |', '|---|---|---|', ...options.map(markdownRow)].join(
      '\n',
    ),
  );
  return `${[MARKDOWN_INTRODUCTION.trimEnd(), ...sections].join('\n\n')}\n`;
}

function markdownRow([name, option]: readonly [string, Option]): string {
  const initial = option.default === null ? '' : `\`${option.default}\``;
  const file = option.file ? ` *or \`_FILE\`*` : '';
  return `| \`${name}\`${file} | ${initial} | ${option.doc.replaceAll('|', '\\|')} |`;
}

/** `config/reference.env`: a file for `--config` in which everything is commented out. */
export function renderEnv(): string {
  const sections = [...groups()].map(([group, options]) =>
    [`# ${TITLES[group].replaceAll('`', '')}`, ...options.map(envLines)].join('\n\n'),
  );
  return `${[ENV_INTRODUCTION.trimEnd(), ...sections].join('\n\n')}\n`;
}

function envLines([name, option]: readonly [string, Option]): string {
  const comment = option.doc.replaceAll(/(.{1,100})(?:\s+|$)/gu, '# $1\n');
  const file = option.file ? `\n#${name}_FILE=` : '';
  return `${comment}#${name}=${option.default ?? ''}${file}`;
}

function groups(): Map<Group, (readonly [string, Option])[]> {
  const result = new Map<Group, (readonly [string, Option])[]>();
  for (const entry of Object.entries<Option>(OPTIONS)) {
    const group = result.get(entry[1].group) ?? [];
    group.push(entry);
    result.set(entry[1].group, group);
  }
  return result;
}

if (import.meta.main) {
  writeFileSync(new URL('../config/reference.md', import.meta.url), renderMarkdown());
  writeFileSync(new URL('../config/reference.env', import.meta.url), renderEnv());
}
