"""Configuration files of this server and of Mail::POP3."""

import io

from netserver import config_files
from netserver.errors import ConfigError
from pop3.tools import perl_data
from pop3.tools.old_keys import convert
from pop3.tools.update_conf import document
from tests.fuzz.target import target

NAMES = ("c.yaml", "c.toml", "c.ini")


@target(
    "config",
    seeds=(
        b"\0listen: [127.0.0.1:110, '[::1]:110']\nuser: mail # x\nlog-file:\nx: \"a\\nb\"\n",
        b"\0a: |\n  text\nb: >-\n  more\n? c\n: d\n",
        b"\1listen = ['127.0.0.1:110', \"[::1]:110\"]\nworkers = 4\nt = true\nd = 1979-05-27\n",
        b"\1a = '''x\ny'''\n\"b c\" = 1.5 # x\nm = [\n 1,\n 2, # y\n]\n",
        b'\2[server]\nlisten = 127.0.0.1:110\nlisten = x ; y\n; c\nq: "a # b" # c\n',
    ),
    words=(
        b"a: b\n",
        b"&x ",
        b"*x",
        b"!!int ",
        b"- ",
        b"'''",
        b'"""',
        b"[a]\n",
        b" = ",
        b"{",
        b"\\u0000",
    ),
    longest=600,
)
def config(data: bytes) -> None:
    """A file is keys with texts and lines, or one line tells what is wrong."""
    name = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
    try:
        entries = config_files.read(io.BytesIO(data[1:]), name)
    except ConfigError as error:
        assert str(error).startswith(name)
        assert "\n" not in str(error)
        return
    last = data.count(b"\n") + 1 + 2 * data.count(b"\r") + 3 * data.count(b"\xc2\x85")
    last += data.count(b"\xe2\x80")
    for entry in entries:
        assert isinstance(entry.key, str)
        assert 1 <= entry.line <= last
        values = entry.value if isinstance(entry.value, list) else [entry.value or ""]
        assert all(isinstance(value, str) and "\0" not in value for value in values)


@target(
    "perl-config",
    seeds=(
        b"{ port => 110, 'mailbox_class' => \"M::F\", x => [1, {a => undef}], s => sub { 1 } };",
        b"our %config = (port => 110); $x = 'y'; @l = qw(a b); 1;\n",
        b"{ a => <<'E', b => q{x}, c => qq(y $z) }\nhere\nE\n",
        b"# c\n=pod\n\n=cut\n$config{'port'} = 110;\n__END__\nx",
        b"{ mailbox_class => 'Mail::POP3::Folder::webscrape', mailbox_args => [ sub { 1 } ] }",
        b"{max_servers => 0x10, timeout => 1_000, spool_dir => '/var/mail', debug => 1}",
    ),
    words=(
        b"=>",
        b"qw(",
        b"sub {",
        b"<<E\n",
        b"\\'",
        b"$x",
        b"=pod\n",
        b"{",
        b"[",
        b"/",
        b"s/a/b/",
    ),
    longest=600,
)
def perl_config(data: bytes) -> None:
    """A file is data or a mistake in some line; what is made of it can be read."""
    try:
        found = perl_data.read(data)
    except perl_data.PerlDataError as error:
        assert 1 <= error.line <= data.count(b"\n") + 1
        return
    results = [convert(key, item, found) for key, item in found.items.items()]
    text = document("old", results, found)
    config_files.read(io.BytesIO(text.encode()), "new.yaml")
