"""Makes the keys and tokens of this directory: with PyJWT and pyca/cryptography, so that the gateway is held
against a library of others. Run once; tests read the files. `pip install pyjwt cryptography`, then
`python make.py` here. The private keys are for tests and nothing else."""

import base64
import hashlib
import hmac
import json
import jwt
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

CLAIMS = {"sub": "alice", "exp": 4102444800, "nbf": 1700000000, "iss": "https://issuer.example",
          "aud": ["other", "corecast"], "topics": ["news", "orders/*"], "max_connections": 3, "single": True}
SECRET = b"0123456789abcdef" * 4

keys = {
    "rs256": ("RS256", rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "es256": ("ES256", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "eddsa": ("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
}
tokens = {name: jwt.encode(CLAIMS, SECRET, name.upper()) for name in ("hs256", "hs384", "hs512")}
jwks = []
for name, (algorithm, key, encoder) in keys.items():
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    open(f"{name}.public.pem", "wb").write(public)
    open(f"{name}.private.pem", "wb").write(private)
    tokens[name] = jwt.encode(CLAIMS, key, algorithm, headers={"kid": name})
    jwks.append(json.loads(encoder.to_jwk(key.public_key())) | {"kid": name, "use": "sig"})
# The classic mistake of verifiers: the public key, which everybody has, taken for a secret (RFC 8725 2.1).
public = open("rs256.public.pem", "rb").read()
signed = tokens["hs256"].rsplit(".", 1)[0]
mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
tokens["confused"] = signed + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
tokens["none"] = jwt.encode(CLAIMS, None, "none")
small = rsa.generate_private_key(65537, 1024).public_key()
open("short-rsa.public.pem", "wb").write(
    small.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
open("p384.public.pem", "wb").write(
    p384.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
jwks.append(json.loads(ECAlgorithm.to_jwk(p384)) | {"kid": "p384", "alg": "ES384"})
jwks.append({"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": jwks[0]["n"], "e": "AQAB"})
json.dump({"keys": jwks}, open("jwks.json", "w"), indent=1)
json.dump(tokens, open("tokens.json", "w"), indent=1)
