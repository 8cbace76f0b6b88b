import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.List;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/** Says hello over TLS to PORT many times, each time in another way. It expects no answer. */
public class Hello {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        var factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        String[][] versions = {{"TLSv1.3"}, {"TLSv1.2"}, {"TLSv1.3", "TLSv1.2"}};
        String[][] protocols = {{}, {"h2"}, {"h2", "http/1.1"}};
        for (String name : new String[] {"java.example.com", ""}) {
            for (String[] version : versions) {
                for (String[] protocol : protocols) {
                    try (var socket = (SSLSocket) factory.createSocket()) {
                        socket.connect(new InetSocketAddress("127.0.0.1", port));
                        socket.setSoTimeout(5000);
                        SSLParameters parameters = socket.getSSLParameters();
                        parameters.setProtocols(version);
                        parameters.setApplicationProtocols(protocol);
                        if (!name.isEmpty()) {
                            parameters.setServerNames(List.of(new SNIHostName(name)));
                        }
                        socket.setSSLParameters(parameters);
                        socket.startHandshake();
                    } catch (java.io.IOException e) {
                        // Nobody answers.
                    }
                }
            }
        }
    }
}
