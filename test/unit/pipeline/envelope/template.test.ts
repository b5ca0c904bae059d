import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { TemplateSyntaxError, parseTemplate } from '../../../../src/pipeline/envelope/template.ts';

const row = (values: Record<string, string | null>) => ({
  text: (column: string) => (Object.hasOwn(values, column) ? values[column] : undefined),
});

describe('template', () => {
  it('fills columns, keeps other dollars, resolves the escape', () => {
    const values = row({ a: '1', b: '${a}', 'odd name': '' });
    for (const [template, expected] of [
      ['', ''],
      ['plain', 'plain'],
      ['${a}', '1'],
      ['x.${a}-${b}.${a}', 'x.1-${a}.1'],
      ['[${odd name}]', '[]'],
      ['$a $1 $', '$a $1 $'],
      ['$${a}', '${a}'],
      ['$${${a}}', '${1}'],
      ['a}b{', 'a}b{'],
    ] as const) {
      assert.equal(parseTemplate(template).render(values), expected, template);
    }
  });

  it('lists each column once, in order; a constant has none', () => {
    assert.deepEqual(parseTemplate('${b}${a}${b}').columns, ['b', 'a']);
    assert.deepEqual(parseTemplate('$${b}').columns, []);
  });

  it('P10 a row that can not fill it is an answer, not an exception', () => {
    const template = parseTemplate('${a}.${b}');
    assert.deepEqual(template.render(row({ a: '1' })), { column: 'b', problem: 'missing' });
    assert.deepEqual(template.render(row({ a: null, b: '2' })), { column: 'a', problem: 'null' });
  });

  it('P2 what earlier rows had changes nothing, whether they could fill it or not', () => {
    const value = fc.option(fc.constantFrom('', '1', '2'), { nil: null });
    fc.assert(
      fc.property(
        fc.array(fc.record({ a: value, b: value }, { requiredKeys: [] }), { maxLength: 20 }),
        (rows) => {
          const template = parseTemplate('${a}.${b}');
          for (const values of rows) {
            const given = row(values);
            const like = {
              text: (column: string, text?: string) =>
                given.text(column) === text ? text : given.text(column),
            };
            assert.deepEqual(template.render(like), parseTemplate('${a}.${b}').render(given));
          }
        },
      ),
    );
  });

  it('says where the syntax is wrong', () => {
    for (const [template, message] of [
      ['ab${c', 'has "${" without "}" at character 3'],
      ['${}', 'has "${}" without a column name at character 1'],
      ['${ a }', 'has spaces around the column name at character 1'],
      ['${a${b}}', 'has "${" inside "${" at character 1'],
    ] as const) {
      assert.throws(() => parseTemplate(template), new TemplateSyntaxError(message), template);
    }
  });

  it('any text survives when its places are escaped', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('$', '{', '}', 'a', '${', '.')).map((parts) => parts.join('')),
        (text) => {
          // "$${" is the escape, so that a "$" before "${" can't be written; the generator's texts without it are enough.
          fc.pre(!text.includes('$${'));
          assert.equal(parseTemplate(text.replaceAll('${', () => '$${')).render(row({})), text);
        },
      ),
    );
  });
});
