import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { OPTIONS } from '../../src/config/schema.ts';
import { VARIABLES } from '../../src/config/settings.ts';
import { CHART, env, manifests, only, relayOf, render, type PodSpec } from '../support/chart.ts';
import { helm } from '../support/helm.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const KAFKA = join(CHART, 'ci/kafka-values.yaml');
const RABBITMQ = join(CHART, 'ci/rabbitmq-values.yaml');

describe('chart', () => {
  for (const values of [KAFKA, RABBITMQ])
    test(`passes helm lint --strict with ${values.slice(CHART.length + 1)}`, async () => {
      const result = await helm('lint', '--strict', CHART, '--values', values);
      assert.equal(result.code, 0, result.stdout + result.stderr);
    });

  test('has the version of the package', async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const chart = parse(await readFile(join(CHART, 'Chart.yaml'), 'utf8')) as Record<string, string>;
    assert.equal(chart['appVersion'], version);
    assert.equal(relayOf(await render('--values', KAFKA)).image, `outbox-relay:${version}`);
  });

  test('maps values to the variables of the relay', async () => {
    const relay = relayOf(await render('--values', KAFKA, '--set', 'config.KAFKA_SSL=true'));
    assert.equal(env(relay, 'BROKER').value, 'kafka');
    assert.equal(env(relay, 'KAFKA_BROKERS').value, 'kafka-0.kafka:9092,kafka-1.kafka:9092');
    assert.equal(env(relay, 'ROUTE_TOPIC').value, 'shop.${aggregatetype}');
    assert.equal(env(relay, 'HTTP_PORT').value, '9464');
    assert.equal(env(relay, 'SHUTDOWN_TIMEOUT_MS').value, '25000');
    assert.equal(env(relay, 'KAFKA_SSL').value, 'true');
    // From a values file every number is a float in a template, and would print as 6.7108864e+07.
    assert.equal(env(relay, 'MAX_IN_FLIGHT_BYTES').value, '67108864');
  });

  test('takes secrets from an existing secret, as variables and as files', async () => {
    const all = await render('--values', KAFKA);
    const pod = only(all, 'Deployment').spec.template.spec;
    const relay = relayOf(all);
    assert.deepEqual(env(relay, 'DATABASE_URL').valueFrom, {
      secretKeyRef: { name: 'outbox-relay', key: 'database-url' },
    });
    const mount = relay.volumeMounts?.[0];
    assert.equal(mount?.readOnly, true);
    assert.equal(env(relay, 'DATABASE_PASSWORD_FILE').value, `${mount.mountPath}/password`);
    assert.deepEqual(
      pod.volumes?.map(({ name, secret }) => ({ name, secretName: secret.secretName, items: secret.items })),
      [{ name: mount.name, secretName: 'outbox-relay', items: [{ key: 'password', path: 'password' }] }],
    );
    assert.equal(
      all.some((manifest) => manifest.kind === 'Secret'),
      false,
    );
  });

  test('without secret files there is no volume', async () => {
    const all = await render('--values', RABBITMQ);
    assert.equal(only(all, 'Deployment').spec.template.spec.volumes, undefined);
    assert.equal(relayOf(all).volumeMounts, undefined);
  });

  test('runs restricted: not root, read-only, no capability, no token', async () => {
    const pod = only(await render('--values', KAFKA), 'Deployment').spec.template.spec;
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(pod.enableServiceLinks, false);
    assert.equal(pod.securityContext['runAsNonRoot'], true);
    for (const container of [...pod.containers, ...(pod.initContainers ?? [])])
      assert.deepEqual(container.securityContext, {
        runAsNonRoot: true,
        runAsUser: 10001,
        runAsGroup: 10001,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      });
  });

  test('probes /livez and /readyz on the named port', async () => {
    const relay = relayOf(await render('--values', KAFKA, '--set', 'httpPort=8080'));
    assert.deepEqual(relay.ports, [{ name: 'relay-http', containerPort: 8080, protocol: 'TCP' }]);
    assert.equal(env(relay, 'HTTP_PORT').value, '8080');
    assert.deepEqual(relay.startupProbe?.httpGet, { path: '/livez', port: 'relay-http' });
    assert.deepEqual(relay.livenessProbe?.httpGet, { path: '/livez', port: 'relay-http' });
    assert.deepEqual(relay.readinessProbe?.httpGet, { path: '/readyz', port: 'relay-http' });
    assert.ok(relay.resources?.limits);
    assert.ok(relay.resources.requests);
  });

  test('several replicas, and a new pod stands by before an old one ends', async () => {
    const { spec } = only(await render('--values', KAFKA), 'Deployment');
    assert.equal(spec.replicas, 2);
    // Never fewer than asked for, so that one stands by when another gives the lead back.
    assert.deepEqual(spec.strategy, {
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
    });
    for (const [label, value] of Object.entries(spec.selector.matchLabels))
      assert.equal(spec.template.metadata.labels[label], value);
  });

  for (const [shutdownTimeoutMs, seconds] of [
    [25_000, 30],
    [60_000, 65],
    [1, 6],
  ] as const)
    test(`P4 a drain of ${shutdownTimeoutMs} ms gets ${seconds} s before SIGKILL`, async () => {
      const all = await render('--values', KAFKA, '--set', `shutdownTimeoutMs=${shutdownTimeoutMs}`);
      assert.equal(only(all, 'Deployment').spec.template.spec.terminationGracePeriodSeconds, seconds);
    });

  test('P4 a grace period that would cut the drain short is refused', async () => {
    const result = await helm(
      'template',
      CHART,
      '--values',
      KAFKA,
      '--set',
      'terminationGracePeriodSeconds=29',
    );
    assert.notEqual(result.code, 0);
    assert.match(result.stderr, /shutdownTimeoutMs 25000 needs at least 30/);
  });

  test('migrations run before the relay when asked for', async () => {
    const pod = only(await render('--values', KAFKA), 'Deployment').spec.template.spec;
    assert.deepEqual(
      pod.initContainers?.map(({ args, restartPolicy }) => [args, restartPolicy]),
      [[['migrate'], undefined]],
    );
    assert.equal(
      only(await render('--values', RABBITMQ), 'Deployment').spec.template.spec.initContainers,
      undefined,
    );
  });

  test('monitors scrape /metrics of the pods that the Deployment makes', async () => {
    const withPodMonitor = await render('--values', KAFKA);
    const { matchLabels } = only(withPodMonitor, 'Deployment').spec.selector;
    const podMonitor = only(withPodMonitor, 'PodMonitor').spec;
    assert.deepEqual(podMonitor.selector.matchLabels, matchLabels);
    assert.equal(podMonitor.podMetricsEndpoints?.[0]?.path, '/metrics');
    assert.equal(podMonitor.podMetricsEndpoints[0].port, relayOf(withPodMonitor).ports?.[0]?.name);

    const withServiceMonitor = await render('--values', RABBITMQ);
    const service = only(withServiceMonitor, 'Service');
    const serviceMonitor = only(withServiceMonitor, 'ServiceMonitor').spec;
    for (const [label, value] of Object.entries(serviceMonitor.selector.matchLabels))
      assert.equal(service.metadata.labels[label], value);
    assert.equal(serviceMonitor.endpoints?.[0]?.port, service.spec.ports?.[0]?.name);
  });

  test('the service account is made, or an existing one used', async () => {
    const made = await render('--values', KAFKA);
    const account = only(made, 'ServiceAccount').metadata.name;
    assert.equal(only(made, 'Deployment').spec.template.spec.serviceAccountName, account);
    const existing = await render(
      '--values',
      KAFKA,
      '--set',
      'serviceAccount.create=false,serviceAccount.name=shop',
    );
    assert.equal(
      existing.some((manifest) => manifest.kind === 'ServiceAccount'),
      false,
    );
    assert.equal(only(existing, 'Deployment').spec.template.spec.serviceAccountName, 'shop');
  });
});

/** [what is wrong, arguments of helm, what the message must name] */
const REFUSED: readonly (readonly [string, readonly string[], RegExp])[] = [
  ['an unknown value', ['--set', 'replicas=1'], /replicas/],
  ['an unknown nested value', ['--set', 'image.name=x'], /image/],
  ['an unknown broker', ['--set', 'broker=nats'], /broker/],
  ['no broker', ['--set', 'broker=null'], /broker/],
  ['a negative number of replicas', ['--set', 'replicaCount=-1'], /replicaCount/],
  ['a number of replicas that is text', ['--set-string', 'replicaCount=1'], /replicaCount/],
  ['an unknown strategy', ['--set', 'strategy.type=BlueGreen'], /strategy/],
  ['a port out of range', ['--set', 'httpPort=70000'], /httpPort/],
  ['an unknown log level', ['--set', 'logLevel=loud'], /logLevel/],
  ['a shutdown timeout with a unit', ['--set', 'shutdownTimeoutMs=25s'], /shutdownTimeoutMs/],
  ['a digest that is none', ['--set', 'image.digest=latest'], /digest/],
  ['a pull policy in the wrong case', ['--set', 'image.pullPolicy=always'], /pullPolicy/],
  ['a variable in lower case', ['--set', 'config.kafka_brokers=x'], /config/],
  ['a variable that has a value of its own', ['--set', 'config.HTTP_PORT=1'], /config.HTTP_PORT/],
  [
    'a secret among the plain variables',
    ['--set', 'config.DATABASE_URL=postgres://u:p@h/d'],
    /config.DATABASE_URL/,
  ],
  ['a fraction as a variable', ['--set-json', 'config.MAX_ATTEMPTS=1.5'], /MAX_ATTEMPTS/],
  ['a structure as a variable', ['--set', 'config.ROUTE_KEY.a=b'], /ROUTE_KEY/],
  [
    'a secret file variable with the suffix',
    ['--set', 'existingSecret.files.RABBITMQ_URL_FILE=u'],
    /existingSecret/,
  ],
  ['a key with a slash', ['--set', 'existingSecret.files.RABBITMQ_URL=a/b'], /RABBITMQ_URL/],
  ['secrets without the name of the secret', ['--set', 'existingSecret.name='], /existingSecret\.name/],
  ['an interval without a unit', ['--set-string', 'podMonitor.interval=15'], /interval/],
  ['a probe field that does not exist', ['--set', 'livenessProbe.path=/x'], /livenessProbe/],
];

/** Certificates are `secret` in the schema so that `config` doesn't print pages of PEM; here they may be plain. */
const SECRETS = Object.entries(OPTIONS)
  .filter(([name, option]) => 'secret' in option && !/_(CA|CERT)$/.test(name))
  .map(([name]) => name);

describe('chart and configuration agree', () => {
  test('every variable that is rendered is one of the relay', async () => {
    for (const values of [KAFKA, RABBITMQ])
      for (const { name } of relayOf(await render('--values', values)).env)
        assert.ok(VARIABLES.includes(name), name);
  });

  for (const name of SECRETS)
    test(`${name} is refused among the plain variables`, async () => {
      const result = await helm('template', CHART, '--values', KAFKA, '--set', `config.${name}=x`);
      assert.notEqual(result.code, 0);
      assert.match(result.stderr, new RegExp(`/config/${name}'`));
    });

  test('existingSecret.files takes exactly the variables that have a _FILE', async () => {
    const schema = JSON.parse(await readFile(join(CHART, 'values.schema.json'), 'utf8')) as {
      properties: { existingSecret: { properties: { files: { properties: object } } } };
    };
    const named = Object.keys(schema.properties.existingSecret.properties.files.properties);
    const known = VARIABLES.filter((name) => VARIABLES.includes(`${name}_FILE`));
    assert.deepEqual(named.sort(), known.sort());
  });
});

describe('chart refuses', () => {
  for (const [what, args, message] of REFUSED)
    test(what, async () => {
      const result = await helm('template', CHART, '--values', KAFKA, ...args);
      assert.notEqual(result.code, 0, 'it was rendered');
      assert.match(result.stderr, message);
    });
});

const PARENT_POD = `
apiVersion: v1
kind: Pod
metadata:
  name: shop
spec:
{{- $relay := index .Subcharts "outbox-relay" }}
  terminationGracePeriodSeconds: {{ include "outbox-relay.terminationGracePeriodSeconds" $relay }}
  initContainers:
    - {{ include "outbox-relay.migrateContainer" $relay | indent 6 | trim }}
    - {{ include "outbox-relay.sidecar" $relay | indent 6 | trim }}
  containers:
    - name: shop
      image: shop
  {{- with include "outbox-relay.volumes" $relay | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
`;

describe('chart as a sidecar of another one', () => {
  let parent: string;

  before(async () => {
    parent = await mkdtemp(join(tmpdir(), 'outbox-relay-chart-'));
    await mkdir(join(parent, 'templates'));
    await cp(CHART, join(parent, 'charts/outbox-relay'), { recursive: true });
    await writeFile(
      join(parent, 'Chart.yaml'),
      'apiVersion: v2\nname: shop\nversion: 1.2.3\nappVersion: "9"\ndependencies: [{name: outbox-relay, version: "*"}]\n',
    );
    await writeFile(join(parent, 'templates/pod.yaml'), PARENT_POD);
    const values = parse(await readFile(KAFKA, 'utf8')) as object;
    const off = { ...values, deployment: { enabled: false } };
    await writeFile(join(parent, 'values.yaml'), JSON.stringify({ 'outbox-relay': off }));
  });

  after(async () => {
    await rm(parent, { recursive: true, force: true });
  });

  test('gives a native sidecar with probes, secrets and volumes, and nothing else', async () => {
    const result = await helm('template', 'shop', parent);
    assert.equal(result.code, 0, result.stderr);
    const all = manifests(result.stdout);
    assert.deepEqual(
      all.map((manifest) => manifest.kind),
      ['Pod'],
    );
    const pod = all[0]?.spec as unknown as PodSpec;
    assert.equal(pod.terminationGracePeriodSeconds, 30);
    const [migrate, relay] = pod.initContainers ?? [];
    assert.deepEqual(migrate?.args, ['migrate']);
    assert.equal(migrate.restartPolicy, undefined);
    assert.equal(relay?.restartPolicy, 'Always');
    assert.match(relay.image, /^outbox-relay:0\./);
    assert.equal(relay.livenessProbe?.httpGet.path, '/livez');
    assert.equal(env(relay, 'DATABASE_URL').valueFrom?.secretKeyRef.name, 'outbox-relay');
    assert.equal(pod.volumes?.[0]?.name, relay.volumeMounts?.[0]?.name);
  });
});
