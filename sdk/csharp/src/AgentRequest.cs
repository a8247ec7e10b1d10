using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;

namespace Tokenkeep.ZohoCRM
{
    /// <summary>
    /// One request to an agent, on a connection of its own and in HTTP/1.0, whose answers end with the connection. It does
    /// not use HttpWebRequest, which does not connect to Unix sockets. With Mono's, a few of many simultaneous requests
    /// also wait for their time-out.
    /// </summary>
    internal static class AgentRequest
    {
        private const string Unix = "unix:";

        /// <summary>Sends a body, and returns the body of the answer.</summary>
        /// <exception cref="ArgumentException">the address or the token is not valid</exception>
        /// <exception cref="SocketException">there is no connection</exception>
        /// <exception cref="IOException">the answer is not complete</exception>
        public static string Post(string address, string path, string token, string body, int timeout, out int status)
        {
            bool unix = address.StartsWith(Unix, StringComparison.Ordinal);
            Uri url = unix ? new Uri("http://localhost") : Parse(address);
            byte[] content = Encoding.UTF8.GetBytes(body);
            byte[] head = Head(url, path, token, content.Length);
            using (Socket socket = unix ? Connect(new UnixEndPoint(address.Substring(Unix.Length)), timeout) : Connect(url, timeout))
            using (var stream = new NetworkStream(socket))
            {
                stream.Write(head.Concat(content).ToArray(), 0, head.Length + content.Length);
                var answer = new MemoryStream();
                stream.CopyTo(answer);
                return Read(answer.ToArray(), out status);
            }
        }

        private static Uri Parse(string address)
        {
            if (Uri.TryCreate(address, UriKind.Absolute, out Uri url) && url.Scheme == "http")
            {
                return url;
            }
            throw new ArgumentException("the address does not begin with http:// or unix:");
        }

        private static byte[] Head(Uri url, string path, string token, int length)
        {
            if (token.Any(c => c < ' ' || c > '~'))
            {
                throw new ArgumentException("the token has a character that a header cannot have");
            }
            return Encoding.ASCII.GetBytes("POST " + url.AbsolutePath.TrimEnd('/') + path + " HTTP/1.0\r\nHost: " + url.Authority +
                "\r\nContent-Type: application/json\r\nContent-Length: " + length + "\r\nX-Tokenkeep-Token: " + token + "\r\n\r\n");
        }

        private static Socket Connect(Uri url, int timeout)
        {
            IPAddress[] all = Dns.GetHostAddresses(url.DnsSafeHost);
            foreach (IPAddress each in all.Take(all.Length - 1))
            {
                try
                {
                    return Connect(new IPEndPoint(each, url.Port), timeout);
                }
                catch (SocketException)
                {
                    // The next address may have a listener.
                }
            }
            return Connect(new IPEndPoint(all.Last(), url.Port), timeout);
        }

        private static Socket Connect(EndPoint agent, int timeout)
        {
            var socket = new Socket(agent.AddressFamily, SocketType.Stream, ProtocolType.Unspecified)
            {
                SendTimeout = timeout,
                ReceiveTimeout = timeout,
            };
            try
            {
                socket.Connect(agent);
                return socket;
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        }

        private static string Read(byte[] answer, out int status)
        {
            string text = Encoding.UTF8.GetString(answer);
            int end = text.IndexOf("\r\n\r\n", StringComparison.Ordinal);
            string head = end < 0 ? "" : text.Substring(0, end); // it is ASCII: a character is a byte
            Match first = Regex.Match(head, @"^HTTP/1\.[01] (\d{3})");
            Match length = Regex.Match(head, @"\r\nContent-Length: *(\d+)", RegexOptions.IgnoreCase);
            int got = answer.Length - end - 4;
            if (!first.Success || length.Success && length.Groups[1].Value != got.ToString())
            {
                throw new IOException("the answer is not complete");
            }
            status = int.Parse(first.Groups[1].Value);
            return text.Substring(end + 4);
        }

        /// <summary>The path of a Unix socket. .NET Framework and Mono's core have no such type.</summary>
        private sealed class UnixEndPoint : EndPoint
        {
            private readonly byte[] path;

            public UnixEndPoint(string path)
            {
                this.path = Encoding.UTF8.GetBytes(path);
            }

            public override AddressFamily AddressFamily
            {
                get { return AddressFamily.Unix; }
            }

            public override SocketAddress Serialize()
            {
                var a = new SocketAddress(AddressFamily.Unix, 2 + path.Length + 1); // the family, the path and a zero
                for (int i = 0; i < path.Length; i++)
                {
                    a[2 + i] = path[i];
                }
                return a;
            }

            public override EndPoint Create(SocketAddress address)
            {
                return this;
            }
        }
    }
}
