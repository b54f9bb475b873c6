"""Certificates, made anew for each test process."""

import datetime
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Certificate:
    """A certificate and its key, in files."""

    def __init__(self, cert, key, cert_path, key_path):
        self.cert = cert
        self.key = key
        self.cert_path = str(cert_path)
        self.key_path = str(key_path)


class Authority:
    """A CA.  Its own certificate is in the file `path`."""

    def __init__(self, directory, name="Test CA"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._issued = {}
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        cert = (
            x509.CertificateBuilder().subject_name(subject)
            .issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.KeyUsage(
                digital_signature=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(
                key.public_key()), False)
            .sign(key, hashes.SHA256()))
        self.ca = self._store("ca", cert, key)
        self.path = self.ca.cert_path

    def issue(self, *names, expired=False):
        """A certificate for DNS names and addresses, the first its CN."""
        wanted = (names, expired)
        if wanted not in self._issued:
            self._issued[wanted] = self._make(names, expired)
        return self._issued[wanted]

    def _make(self, names, expired):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now + (-DAY if expired else 30 * DAY)
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(
                [x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self.ca.cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - 40 * DAY).not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(
                [alternative(name) for name in names]), False)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self.ca.key.public_key()), False)
            .sign(self.ca.key, hashes.SHA256()))
        return self._store(f"cert{len(self._issued)}", cert, key)

    def _store(self, stem, cert, key):
        cert_path = self.directory / f"{stem}.crt"
        key_path = self.directory / f"{stem}.key"
        cert_path.write_bytes(
            cert.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        return Certificate(cert, key, cert_path, key_path)


class Server:
    """How an origin speaks TLS.

    `client_ca` is the file of the CA whose client certificates are asked
    for; they are demanded unless `optional`.
    """

    def __init__(self, certificate, client_ca=None, optional=False,
                 maximum=None, tickets=True):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.cert_path,
                                     certificate.key_path)
        if client_ca is not None:
            self.context.load_verify_locations(client_ca)
            self.context.verify_mode = (
                ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED)
        if maximum is not None:
            self.context.maximum_version = maximum
        if not tickets:
            self.context.options |= ssl.OP_NO_TICKET
            self.context.num_tickets = 0
        self.context.sni_callback = self._note_name

    @staticmethod
    def _note_name(sock, name, _context):
        sock.asked_for = name

    def wrap(self, conn):
        """Do the handshake; note on the connection what it told."""
        sock = self.context.wrap_socket(conn.sock, server_side=True,
                                        do_handshake_on_connect=False)
        conn.sock = sock
        try:
            sock.do_handshake()
        finally:
            conn.sni = getattr(sock, "asked_for", None)
        conn.session_reused = sock.session_reused
        conn.client_certificate = sock.getpeercert() or None
        conn.tls_version = sock.version()
        return sock


def alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def client_context(ca, alpn=None, certificate=None):
    context = ssl.create_default_context(cafile=ca)
    if alpn:
        context.set_alpn_protocols(alpn)
    if certificate is not None:
        context.load_cert_chain(certificate.cert_path,
                                certificate.key_path)
    return context
