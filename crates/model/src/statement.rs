//! Evidence: in-toto statements in DSSE envelopes (in-toto Statement v1, DSSE v1.0.2), and the predicates that Semel makes.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::pkcs8::EncodePublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::canonical;
use crate::digest::Digest;
use crate::pipeline::EvidenceResult;

/// The only `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The only payload type that verifiers of the field accept.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Predicate types by the short names that gates and `semel attest --type` use.
pub const PREDICATES: [(&str, &str); 6] = [
    ("lint", LINT),
    ("sbom", SBOM),
    ("junit", "https://in-toto.io/attestation/test-result/v0.1"),
    ("provenance", PROVENANCE),
    ("promotion", "https://slsa.dev/verification_summary/v1"),
    ("manual", "https://semel.dev/evidence/manual/v1"),
];

/// The predicate type of provenance (SLSA 1.2).
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The `buildType` of provenance whose `externalParameters` are the definition of a project file: what Semel has built itself.
pub const BUILD_TYPE: &str = "https://semel.dev/build/v1";
/// The predicate type of what the linter found (docs/format.md, "Lint report").
pub const LINT: &str = "https://semel.dev/lint/v1";
/// The predicate type of a list of packages (CycloneDX, "Bill of Materials"; docs/format.md, "Packages").
pub const SBOM: &str = "https://cyclonedx.org/bom";
/// The most claims that come with one build. Each becomes three leaves of the ledger, so this bounds one append.
pub const CLAIMS_MAX: usize = 32;

/// What a builder says about the artefact that it made. It is signed where the builder's key is, and attached as evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What kind of statement it is.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
    /// What that comes to.
    pub result: EvidenceResult,
}

impl Claim {
    /// The provenance of an artefact.
    pub fn provenance(predicate: Value) -> Self {
        Self { predicate_type: PROVENANCE.to_owned(), predicate, result: EvidenceResult::Info }
    }
}

/// Why the claims of a builder are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaims {
    /// Nobody would know how the artefact came about.
    #[error("a build comes with its provenance ({PROVENANCE}), and this one has none")]
    NoProvenance,
    /// Two statements of one type would leave open which one counts.
    #[error("a build says each thing once, and {0} comes twice")]
    Twice(String),
    /// More than one append should hold.
    #[error("a build comes with at most {CLAIMS_MAX} claims, and this one has {0}")]
    TooMany(usize),
}

/// Whether a build may come with these claims: provenance exactly once, every other type at most once.
pub fn check_claims(claims: &[Claim]) -> Result<(), InvalidClaims> {
    if claims.len() > CLAIMS_MAX {
        return Err(InvalidClaims::TooMany(claims.len()));
    }
    let mut seen = BTreeSet::new();
    for claim in claims {
        if !seen.insert(claim.predicate_type.as_str()) {
            return Err(InvalidClaims::Twice(claim.predicate_type.clone()));
        }
    }
    if seen.contains(PROVENANCE) { Ok(()) } else { Err(InvalidClaims::NoProvenance) }
}

/// The predicate type that a short name stands for; anything with a scheme stands for itself.
pub fn predicate_type(name: &str) -> Option<String> {
    let known = PREDICATES.iter().find(|(short, _)| *short == name).map(|(_, uri)| (*uri).to_owned());
    known.or_else(|| name.contains("://").then(|| name.to_owned())).or_else(|| {
        let word = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (word && !name.is_empty()).then(|| format!("https://semel.dev/evidence/{name}/v1"))
    })
}

/// The short name of a predicate type, for people.
pub fn predicate_name(uri: &str) -> &str {
    let known = PREDICATES.iter().find(|(_, known)| *known == uri).map(|(short, _)| *short);
    known
        .or_else(|| uri.strip_prefix("https://semel.dev/evidence/").and_then(|rest| rest.strip_suffix("/v1")))
        .unwrap_or(uri)
}

/// A statement about one artefact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// What it is about; matched by digest alone.
    pub subject: Vec<Subject>,
    /// What kind of statement it is.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Digests by algorithm name.
    pub digest: BTreeMap<String, String>,
}

impl Statement {
    /// A statement about an artefact.
    pub fn about(name: &str, digest: &Digest, predicate_type: &str, predicate: Value) -> Self {
        let digest = BTreeMap::from([(digest.algorithm().as_str().to_owned(), digest.hex().to_owned())]);
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name: name.to_owned(), digest }],
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// Whether one of the subjects is this digest.
    pub fn is_about(&self, digest: &Digest) -> bool {
        self.subject
            .iter()
            .any(|s| s.digest.get(digest.algorithm().as_str()).is_some_and(|hex| hex == digest.hex()))
    }
}

/// A signed statement. Exactly one signature, as bundles require.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The statement's bytes in base64.
    pub payload: String,
    /// Always [`PAYLOAD_TYPE`].
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// An unauthenticated hint: base64 of the SHA-256 of the key's SPKI.
    pub keyid: String,
    /// The ECDSA signature over the pre-authentication encoding, ASN.1 DER in base64.
    pub sig: String,
}

/// Why an envelope says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It has not the form of an envelope around a statement.
    #[error("not a signed in-toto statement: {0}")]
    Malformed(String),
    /// The signature is not this key's.
    #[error("the signature of the statement does not verify")]
    Signature,
}

/// The pre-authentication encoding that is signed (DSSE v1.0.2, protocol.md).
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The hint by which a key is found: base64 of the SHA-256 of its SPKI in DER.
pub fn key_hint(key: &VerifyingKey) -> String {
    BASE64.encode(Sha256::digest(spki(key)))
}

fn spki(key: &VerifyingKey) -> Vec<u8> {
    key.to_public_key_der().expect("a P-256 key has an SPKI form").into_vec()
}

impl Envelope {
    /// Signs a statement.
    pub fn sign(statement: &Statement, key: &SigningKey) -> Self {
        let payload = canonical::bytes(statement);
        let signature: DerSignature = key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload));
        let signature = EnvelopeSignature {
            keyid: key_hint(key.verifying_key()),
            sig: BASE64.encode(signature.as_bytes()),
        };
        Self {
            payload: BASE64.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![signature],
        }
    }

    /// The envelope's own bytes, as they are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::bytes(self)
    }

    /// Reads an envelope without checking its signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    /// The statement, whoever signed it: whether to believe it is another question.
    pub fn statement(&self) -> Result<Statement, EnvelopeError> {
        serde_json::from_slice(&self.payload()?).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    /// The statement, if the signature is this key's.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Statement, EnvelopeError> {
        let payload = self.payload()?;
        let signature = self.signature()?;
        key.verify(&pre_authentication_encoding(&self.payload_type, &payload), &signature)
            .map_err(|_| EnvelopeError::Signature)?;
        self.statement()
    }

    /// The ledger leaf of this signature: the Rekor v2 `hashedrekord` body (0.0.2), canonical.
    pub fn hashedrekord(&self, key: &VerifyingKey) -> Result<Vec<u8>, EnvelopeError> {
        let encoded = pre_authentication_encoding(&self.payload_type, &self.payload()?);
        let signature = self.signature()?;
        Ok(canonical::bytes(&json!({
            "apiVersion": "0.0.2",
            "kind": "hashedrekord",
            "spec": {"hashedRekordV002": {
                "data": {"algorithm": "SHA2_256", "digest": BASE64.encode(Sha256::digest(&encoded))},
                "signature": {
                    "content": BASE64.encode(signature.as_bytes()),
                    "verifier": {
                        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                        "publicKey": {"rawBytes": BASE64.encode(spki(key))},
                    },
                },
            }},
        })))
    }

    /// The Sigstore bundle v0.3 around this envelope, without a ledger entry (those are derived when asked for).
    pub fn bundle(&self) -> Vec<u8> {
        let hint = self.signatures.first().map_or("", |signature| signature.keyid.as_str());
        canonical::bytes(&json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": self,
        }))
    }

    fn payload(&self) -> Result<Vec<u8>, EnvelopeError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::Malformed(format!("payload type `{}`", self.payload_type)));
        }
        BASE64.decode(&self.payload).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    fn signature(&self) -> Result<DerSignature, EnvelopeError> {
        let [signature] = self.signatures.as_slice() else {
            return Err(EnvelopeError::Malformed("expected exactly one signature".to_owned()));
        };
        let bytes =
            BASE64.decode(&signature.sig).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        DerSignature::try_from(bytes.as_slice()).map_err(|_| EnvelopeError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn statement() -> Statement {
        Statement::about(
            "shop/api",
            &Digest::of(b"artefact"),
            "https://slsa.dev/provenance/v1",
            json!({"a": 1}),
        )
    }

    #[test]
    fn an_envelope_verifies_under_its_key_alone() {
        let envelope = Envelope::sign(&statement(), &key(1));
        let read = Envelope::parse(&envelope.to_bytes()).unwrap();
        assert_eq!(read.verify(key(1).verifying_key()).unwrap(), statement());
        assert_eq!(read.verify(key(2).verifying_key()), Err(EnvelopeError::Signature));
        assert!(statement().is_about(&Digest::of(b"artefact")));
        assert!(!statement().is_about(&Digest::of(b"other")));
    }

    #[test]
    fn a_builder_says_how_it_built_and_says_each_thing_once() {
        let claim = |kind: &str| Claim {
            predicate_type: kind.to_owned(),
            predicate: json!({}),
            result: EvidenceResult::Pass,
        };
        let many = |n: usize| (0..n).map(|at| claim(&at.to_string())).collect::<Vec<_>>();
        let provenance = Claim::provenance(json!({}));
        for (claims, expected) in [
            (vec![provenance.clone()], Ok(())),
            (vec![claim("closure"), provenance.clone(), claim("sbom")], Ok(())),
            (vec![claim("closure")], Err(InvalidClaims::NoProvenance)),
            (vec![], Err(InvalidClaims::NoProvenance)),
            (vec![provenance.clone(), provenance], Err(InvalidClaims::Twice(PROVENANCE.to_owned()))),
            (many(CLAIMS_MAX + 1), Err(InvalidClaims::TooMany(CLAIMS_MAX + 1))),
        ] {
            assert_eq!(check_claims(&claims), expected, "{claims:?}");
        }
    }

    #[test]
    fn a_changed_payload_does_not_verify() {
        let mut envelope = Envelope::sign(&statement(), &key(1));
        let other = Envelope::sign(&Statement { predicate: json!({"a": 2}), ..statement() }, &key(1));
        envelope.payload = other.payload;
        assert_eq!(envelope.verify(key(1).verifying_key()), Err(EnvelopeError::Signature));
    }

    #[test]
    fn the_signed_encoding_is_that_of_dsse() {
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn short_names_and_predicate_types_map_both_ways() {
        for (name, uri) in PREDICATES {
            assert_eq!(predicate_type(name).unwrap(), uri);
            assert_eq!(predicate_name(uri), name);
        }
        assert_eq!(predicate_type("load-test").unwrap(), "https://semel.dev/evidence/load-test/v1");
        assert_eq!(predicate_name("https://semel.dev/evidence/load-test/v1"), "load-test");
        assert_eq!(predicate_type("Load Test"), None);
    }
}
