"""What the tests of TLS to the origin have in common."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from . import http1, tls

NAME = "origin.test"
APP = "upstream origin.test { server %{origin}; }"
PASS = "myproxy_pass https://origin.test;"
TRUST = "myproxy_ssl_trusted_certificate %{authority.path};"
CLOSING = http1.response(200, "Connection: close")


def ask(stage, location=PASS + TRUST, http=APP, **more):
    """The status of a single request, and the log."""
    nginx = stage.nginx(http=http, location=location, **more)
    return nginx.get().status, nginx


def pem(path, *things):
    """Certificates, lists and keys in a file; returns its path."""
    path.write_bytes(b"".join(
        thing.public_bytes(serialization.Encoding.PEM) for thing in things))
    return str(path)


class Chain:
    """A root, so many CAs below it, and a certificate of the last."""

    def __init__(self, directory, below, name=NAME):
        root = tls.Authority(directory / "0", "Root")
        self.root = root.path
        issuer, between = root, []
        for number in range(1, below + 1):
            issuer = self._below(issuer, directory / str(number),
                                 f"CA {number}")
            between.insert(0, issuer.ca.cert)
        leaf = issuer.issue(name)
        self.certificate = tls.Certificate(
            leaf.cert, leaf.key,
            pem(directory / "chain.crt", leaf.cert, *between), leaf.key_path)
        self.first = between[-1] if between else None

    @staticmethod
    def _below(above, directory, name):
        """A CA whose own certificate another one has issued."""
        authority = tls.Authority(directory, name)
        own = authority.ca
        cert = (
            x509.CertificateBuilder().subject_name(own.cert.subject)
            .issuer_name(above.ca.cert.subject)
            .public_key(own.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(own.cert.not_valid_before)
            .not_valid_after(own.cert.not_valid_after)
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(above.ca.key, hashes.SHA256()))
        own.cert = cert
        return authority


def revocation_list(authority, path, *certificates):
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateRevocationListBuilder()
               .issuer_name(authority.ca.cert.subject)
               .last_update(now - tls.DAY).next_update(now + tls.DAY))
    for certificate in certificates:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.cert.serial_number)
            .revocation_date(now - tls.DAY).build())
    return pem(path, builder.sign(authority.ca.key, hashes.SHA256()))


@pytest.fixture
def asking(stage, authority):
    """An origin that demands a certificate."""
    return stage.origin(CLOSING, tls=tls.Server(authority.issue(NAME),
                                                client_ca=authority.path))


def subject(conn):
    return dict(pair for part in conn.client_certificate["subject"]
                for pair in part)["commonName"]


def encrypted(certificate, path, password):
    path.write_bytes(certificate.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)))
    return str(path)
