/**
 * Codes of Node's TLS for a certificate that is not accepted: it does not get better by itself, and every retry would be the
 * same. https://nodejs.org/api/tls.html#x509-certificate-error-codes
 */
export const CERTIFICATE_CODES = [
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_SIGNATURE_FAILURE',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'ERR_OSSL_X509_KEY_VALUES_MISMATCH',
] as const;
