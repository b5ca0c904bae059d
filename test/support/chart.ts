import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { helm } from './helm.ts';

export const CHART = fileURLToPath(new URL('../../helm/outbox-relay', import.meta.url));

export interface EnvEntry {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: { readonly secretKeyRef: { readonly name: string; readonly key: string } };
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly env: readonly EnvEntry[];
  readonly restartPolicy?: string;
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly startupProbe?: { readonly httpGet: { readonly path: string; readonly port: string } };
  readonly livenessProbe?: { readonly httpGet: { readonly path: string; readonly port: string } };
  readonly readinessProbe?: { readonly httpGet: { readonly path: string; readonly port: string } };
  readonly resources?: { readonly limits: object; readonly requests: object };
  readonly securityContext: Record<string, unknown>;
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
  }[];
}

export interface PodSpec {
  readonly serviceAccountName: string;
  readonly automountServiceAccountToken: boolean;
  readonly enableServiceLinks: boolean;
  readonly terminationGracePeriodSeconds: number;
  readonly securityContext: Record<string, unknown>;
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes?: readonly {
    readonly name: string;
    readonly secret: { readonly secretName: string; readonly items: object[] };
  }[];
}

export interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels: Record<string, string> };
  readonly spec: {
    readonly replicas: number;
    readonly strategy: { readonly type: string };
    readonly selector: { readonly matchLabels: Record<string, string> };
    readonly template: {
      readonly metadata: { readonly labels: Record<string, string> };
      readonly spec: PodSpec;
    };
    readonly podMetricsEndpoints?: readonly { readonly port: string; readonly path: string }[];
    readonly endpoints?: readonly { readonly port: string; readonly path: string }[];
    readonly ports?: readonly { readonly name: string }[];
  };
}

/** Renders the chart as release `shop`; a failure ends the test with what helm said. */
export async function render(...args: string[]): Promise<Manifest[]> {
  const result = await helm('template', 'shop', CHART, ...args);
  assert.equal(result.code, 0, result.stderr);
  return manifests(result.stdout);
}

export function manifests(text: string): Manifest[] {
  return parseAllDocuments(text)
    .map((document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS() as Manifest | null;
    })
    .filter((manifest) => manifest !== null);
}

export function only(all: readonly Manifest[], kind: string): Manifest {
  const found = all.filter((manifest) => manifest.kind === kind);
  assert.equal(found.length, 1, `${kind}: ${found.length} rendered`);
  return found[0] as Manifest;
}

export function relayOf(all: readonly Manifest[]): Container {
  return only(all, 'Deployment').spec.template.spec.containers[0] as Container;
}

export function env(container: Container, name: string): EnvEntry {
  const entries = container.env.filter((entry) => entry.name === name);
  assert.equal(entries.length, 1, `${name} is set ${entries.length} times`);
  return entries[0] as EnvEntry;
}
