from torch.nn.utils.clip_grad import *
