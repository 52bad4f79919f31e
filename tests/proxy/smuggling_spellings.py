"""Spellings of what says where a request ends and where it goes: those that are right, and those that are not.

Rules: `%b` stands for the length of the body, `%s` for a chunk's size or a whole path, `%d` for a path's folder, `%n`
for its last name, `%%` for a percent sign. What is called good is good by RFC 9112 and taken by the relay.
"""

# fmt: off
GOOD_LENGTHS = (
    b" %b", b"%b", b"%b ", b"\t%b\t", b"   %b   ", b" 00%b",
)
BAD_LENGTHS = (
    b" +%b", b" -%b", b" --%b", b" 0x%b", b" 0o%b", b" \\%b", b' "%b"', b" '%b'", b" (%b)", b" %b;", b" %b;x",
    b" %b,", b" ,%b", b" %b, %b", b" %b,%b", b" %b %b", b" %b, 0", b" 0, %b", b" %b.0", b" %be0", b" %b_0", b" 1_%b",
    b" %bL", b"", b" ", b" \t", b" %b\x00", b" \x00%b", b" %b\x0b", b" \x0b%b", b" \x0c%b", b" %b\xa0", b" \xa0%b",
    b" %b\r", b" \r%b", b" %b\x7f", b" \xb2%b", b" \xef\xbc\x91%b", b" 9999999999999999999", b" 18446744073709551616",
    b" 1000000000000000000000000%b", b" chunked", b" NaN", b" inf", b"\r\n %b", b" %b\r\n 0", b" %b\n0",
)
GOOD_CODINGS = (
    b" chunked", b"chunked", b" Chunked", b" CHUNKED", b"\tchunked ", b" \t chunked\t",
)
BAD_CODINGS = (
    b" identity", b" gzip", b" deflate, chunked", b" gzip, chunked", b" chunked, gzip", b" chunked, chunked", b" x",
    b" chunked, identity", b" identity, chunked", b" ,chunked", b" chunked,", b" , chunked ,", b" chunked;", b"",
    b" chunked;q=1", b" chunked; x=y", b" ;chunked", b' "chunked"', b" 'chunked'", b" (chunked)", b" xchunked",
    b" chunkedx", b" chunke", b" chun ked", b" chunked x", b" x chunked", b" chunked chunked", b" ", b" \x00chunked",
    b" chunked\x00", b" \x0bchunked", b" chunked\x0b", b" \x0cchunked", b" \xa0chunked", b" chunked\xa0", b" 1",
    b" chunked\x7f", b" \rchunked", b" chunked\r", b" chunked\n", b" \nchunked", b"\r\n chunked", b"\r\n\tchunked",
    b" chunked\r\n , identity", b" \xc4\xb1dentity", b" chun\xe2\x84\xaaed", b" chunked\\", b" c\\hunked", b" true",
)
LINE_ENDS = (
    b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\x00\r\n", b"\r\n\r", b"\r\n\n", b"\r \n",
    b"\r\n: x\r\n",
)
BAD_VERSIONS = (
    b"HTTP/1.2", b"HTTP/1.10", b"HTTP/2.0", b"HTTP/2", b"HTTP/0.9", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1", b"HTTP/1.",
    b"", b"http/1.1", b"Http/1.1", b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/ 1.1", b"HTTP /1.1", b"HTTP/1,1", b"HTTP/11",
    b"HTTP/-1.1", b"HTTPS/1.1", b"HTTP/1.1\t", b"HTTP/1.1\x00", b"HTTP/\xb9.1", b"HTTP/1.1 HTTP/1.1", b"HTP/1.1",
    b"ICY", b"HTTP/9.9",
)
BAD_SIZES = (
    b"0x%s", b"0X%s", b"x%s", b"+%s", b"-%s", b" %s", b"\t%s", b"%s ", b"%s\t", b"%s x", b"_%s", b"%s_", b"%sh",
    b"%s.0", b"%s,", b'"%s"', b"%s\x00", b"\x00%s", b"\x0b%s", b"%s\x0b", b"\xa0%s", b"\xef\xbc\x91%s", b"", b"g",
    b"%s\r", b"%s\n", b"\r\n%s", b"1000000000000000%s", b"ffffffffffffffff", b"10000000000000000",
    b"00000000000000000%s", b"-1", b"%s:", b"%s ;a", b"%s; a", b"%s;a ", b"%s;", b"%s;;a", b"%s;a=", b'%s;a="',
    b'%s;a="b', b"%s;=b", b"%s;a\x00", b"%s;a=\x7f", b"%s;a\nb", b"%s;a\rb", b'%s;a="\n"', b'%s;a="\\\n"', b"%s;a b",
    b"%s;a=b c", b'%s;a="b"c', b"%s;\xff", b"%s;a=b;",
)
GOOD_SIZES = (
    b"%s", b"0%s", b"000%s", b"%s;a", b"%s;a=b", b'%s;a="b;c"', b"%s;a;b=1;c", b'%s;a="\\""', b"%s;A=!#$", b"%s;a=0",
)
LOCAL_TARGETS = (
    b"/%s", b"//x%s", b"/.%s", b"/..%s", b"/x/..%s", b"/%%2e%s", b"/%%2e%%2e%s", b"/%%2E%s", b"%s/", b"%s//", b"%s/.",
    b"%s/..", b"%s;", b"%s;x=1", b"%s;/../sleep", b"%s%%00", b"%s%%20", b"%s%%09", b"%s%%0d%%0a", b"%s%%3f",
    b"%s%%23", b"%d/;/%n", b"%d/./%n", b"%d//%n", b"%d%%2f%n", b"%d%%2F%n", b"%d%%5c%n", b"%d\\%n", b"%d/x/../%n",
    b"%d/%%2e/%n", b"%s/../../sleep", b"%s/..;/..;/sleep", b"%s/%%2e%%2e/sleep", b"%s\\..\\sleep", b"%s&x", b"%s$",
    b"%s:80", b"%s@x", b"http://x/%s", b"http://x/.%s", b"http://x/sleep", b"http://x", b"/http://x%s", b"%s%%",
    b"%s%%zz", b"%s~", b"%s*",
)
REFUSED_TARGETS = (
    b"%s#", b"%s#x", b"%s?#", b"#%s", b"%s ", b"%s x", b" %s", b"%s\t", b"\t%s", b"%s\x00", b"%s\x0b", b"%s\x7f",
    b"%s\xa0", b"%s\xc3\xa9", b"\\%s", b"x%s", b"x:%s", b"ftp://x%s", b"http:%s", b"http://%s", b"http:/x%s",
    b"http://u@x%s", b"*", b"http://x y%s", b"http://x\\%s", b"http://x:y%s", b"http://x#%s", b"javascript:%s",
    b"file://%s", b"%s\rx", b"%s\nx",
)
#: Fields that have no business in trailers, and lines that are no fields.
BAD_TRAILERS = (
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: y", b"Connection: close", b"Authorization: x",
    b"Content-Type: x", b"Content-Encoding: gzip", b"TE: trailers", b"Trailer: x", b"Upgrade: x", b"Expect: x",
    b"X-Request-Id: 1", b"X-Forwarded-For: 1", b"Cookie: a", b"X-Api-Key: a", b"Content_Length: 5", b"Host : y",
    b" X: 1", b"X", b"X: a\nb", b"X: a\rb", b"X: \x00", b"X(: a", b"X: a\r\n b", b": a", b"X A: b",
)
