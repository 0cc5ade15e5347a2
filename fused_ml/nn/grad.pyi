from torch.nn.grad import *
